"""Trust: how sure an answer may be taken to be, which claims its sources bear out, and what to do below a bar."""
