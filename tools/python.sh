#!/bin/sh
# Run the arguments with the first Python 3.11 or newer that starts; PYTHON=... overrides the search.
new_enough='import sys; sys.exit(sys.version_info < (3, 11))'
names="python3 python3.15 python3.14 python3.13 python3.12 python3.11 python"
for name in ${PYTHON:-$names}; do
    if command -v "$name" >/dev/null 2>&1 && "$name" -c "$new_enough" >/dev/null 2>&1; then
        exec "$name" "$@"
    fi
done
if [ -n "${PYTHON:-}" ]; then
    echo "PYTHON=$PYTHON is not a working Python 3.11 or newer." >&2
else
    echo "No Python 3.11 or newer found on PATH: install one, or name it: make PYTHON=/path/to/python3" >&2
fi
exit 1
