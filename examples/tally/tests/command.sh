#!/bin/sh
# The command on the cases in tests/cases: NAME.txt is counted, NAME.expect holds the four numbers.
set -u
failures=0
for text in tests/cases/*.txt; do
    expect=$(cat "${text%.txt}.expect")
    got=$(build/tally "$text")
    if [ "$got" = "$expect $text" ]; then
        echo "ok: $text"
    else
        echo "not ok: $text: expected \"$expect\", got \"$got\""
        failures=$((failures + 1))
    fi
done
if build/tally tests/cases/no-such-file 2>/dev/null; then
    echo "not ok: a missing file was counted"
    failures=$((failures + 1))
fi
exit $((failures > 0))
