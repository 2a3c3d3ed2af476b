"""What clients see: what each remote offers, read, checked, pinned, remembered, and joined under one set of names."""
