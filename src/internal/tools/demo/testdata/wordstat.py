"""Counts lines, words and letters of a text on standard input, and its most frequent words. Writes JSON."""
import collections
import json
import re
import statistics
import sys

text = sys.stdin.read()
words = re.findall(r"[a-z]+(?:'[a-z]+)?", text.lower())
counts = collections.Counter(words)
print(f"read {len(text)} characters", file=sys.stderr)
json.dump(
    {
        "lines": text.count("\n"),
        "words": len(words),
        "different": len(counts),
        "mean_length": round(statistics.fmean(map(len, words)), 2) if words else 0,
        "top": [f"{word} {count}" for word, count in counts.most_common(5)],
    },
    sys.stdout,
)
print()
