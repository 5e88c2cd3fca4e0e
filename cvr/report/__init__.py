"""What went in, what is learned, what came out: pages to look at.

A page is made in two parts. collect.py and collect_images.py read a run, and
preview.py a data set, into plain data; they alone know TensorFlow. page.py and
what it uses (charts.py, tiles.py, names.py) are functions of that data, to
text. style.css and script.js go into every page, which needs no network.
"""
