"""How fast orgstead is: ``make bench``. Linux only, because it pins processes to cores and reads ``/proc``.

Only ratios mean anything on another machine. What is compared is therefore measured in turns, within one run, on the
same server process; the medians of at least three rounds count.
"""
