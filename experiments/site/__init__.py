"""The page: outputs/index.html, a static site over all experiments and runs that opens from disk. Imports no torch.

outputs/index.html                    the user's experiments, the reference results, all runs
outputs/pages/<run>.html              one page per run
outputs/pages/reports/<name>.html     one page per report of the user
outputs/pages/reference/<name>.html   one page per reference report
outputs/pages/strips/<run>.png        a few of a run's samples, for the cards
outputs/pages/.runs.json              what each run's page was made of, as a hash
outputs/pages/                        the style, the script and plotly's own bundle, which every page links

Outcomes, columns and answers are the reports'. Pictures stay where they are and are linked. Run pages do not lie in the
run folders, because nothing of a finished run is ever changed, and because they can be removed together.
"""
