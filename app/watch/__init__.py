"""What an operator sees of a running service, and the clocks that it runs by.

`metrics` holds what stations report to, `figures` what is read when somebody looks, `dependencies` how the
parts outside are doing, `event_loop` whether our own loop answers, `clocks` the time that all processes on
one database share. Promises: looking is bounded, however many look and whatever hangs; no label holds an id
or text from outside.
"""
