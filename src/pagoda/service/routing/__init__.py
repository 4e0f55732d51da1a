"""Several engines behind one model name: who is usable, who is asked, and what happens when one fails."""
