"""Training data: read in five forms, checked, cleaned of duplicates, filtered, multiplied; each row keeps its reason.

``rows`` says what a row is, ``reading`` reads files into rows, ``duplicates`` finds copies by MinHash, ``quality``
looks at one text, ``report`` at a whole set, ``filtering`` removes, ``augmentation`` adds. No torch here, and no
model: what needs one takes a callable.
"""
