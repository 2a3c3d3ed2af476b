"""What is decided about a call before, between and after its attempts. Pure: values and `now` in, values out."""
