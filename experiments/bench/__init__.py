"""Speed of training, measured as ratios within one run: `make bench` writes outputs/reports/benchmark/.

All rows of a table are timed in turn, several times, and their medians are compared. So a machine that is slow for a
while is slow for all rows. Times are of training alone.
"""
