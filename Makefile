# Nobody needs make: each target is ./start with a word. Arguments: make test ARGS="-k keys"
.PHONY: help run test check lint bench conformance timing crashes soak image lock audit licences
help:   ; @./start --help
run:    ; @./start $(ARGS)
test:   ; @./start test $(ARGS)
check:  ; @./start check $(ARGS)
lint:   ; @./start lint
bench:  ; @./start bench $(ARGS)
conformance: ; @./start conformance $(ARGS)
timing: ; @./start timing $(ARGS)
crashes: ; @./start crashes $(ARGS)
soak:   ; @./start soak $(ARGS)
image:  ; @./start image $(ARGS)
lock:   ; @./start lock $(ARGS)
audit:  ; @./start audit $(ARGS)
licences: ; @./start licences
