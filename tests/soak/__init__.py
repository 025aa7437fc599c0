"""A long, seeded run of real processes under faults, with a judge that believes nobody. `python -m tests.soak --help`.

schedule   what goes wrong when: a pure function of the seed          arena      the processes, and how faults are done to them
proxy      the network between them and Postgres                      nursery    forks them quickly
job        what runs, and writes down that it ran                     emitter    what signals, and writes down what it committed
evidence   all that was written down, by them and by the database     checker    what has to be true of it; pure
sweep      each failpoint so many times                               takeover   how long others need when one dies
"""
