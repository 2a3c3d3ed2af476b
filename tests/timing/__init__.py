"""Whether the time of a refusal tells why: a measurement, run by `./start timing`, never an assertion among the tests."""
