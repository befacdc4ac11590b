"""The records of a suite's finished runs as one file: a line of JSON for each, its key and what its training left.

    python benchmarks/records.py --suite camvid-pretrained > records.jsonl

Needs the finished runs. What makes them large, the spec, is left out but for its hash, which is the run's address.
"""

import argparse
import json

from bcd.config.load import load_params
from bcd.config.suites import load_suite
from bcd.runs import store
from bcd.runs.expand import suite_runs
from bcd.runs.usable import read_runs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--suite", required=True)
    options = parser.parse_args()
    runs = suite_runs(load_params(), load_suite(options.suite))
    for key, status in read_runs(options.suite, runs.values()).items():
        record = store.record(status.place)
        assert record is not None  # the run is finished
        content = record.model_dump(mode="json", exclude={"spec"})
        facts = {"key": key, "store": status.finished.store, "metrics": status.finished.metrics, **content}
        print(json.dumps(facts, sort_keys=True))


if __name__ == "__main__":
    main()
