"""What the chief of a search and its workers have agreed on: signs of life, exit statuses, names."""

BEAT = 5.0  # seconds between signs of life
SILENCE = 60.0  # seconds without a sign of life after which a worker, or the chief, counts as lost
MORE, GONE = 75, 69  # exit status of a worker that wants a fresh process in its place; of one whose chief is gone
TUNER = "tuner"  # key of a worker's name in its signs of life
CHIEF = "TLKIT_CHIEF"  # environment variable: id of the process that started a worker
