"""What Sphinx needs beside the pages: mathematics without a script, and the pages that the code writes."""
