"""Write docs/methods.md from a run of the tests: which reference each method is tested against, and how.

python docs/make_methods_table.py

Needs the reference data beside the repository.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from collections import Counter
from pathlib import Path

from proxyclip.recipes.methods import METHODS
from proxyclip.recipes.presets import PRESETS, PUBLISHED_ON

ROOT = Path(__file__).resolve().parents[1]
TESTS = ["tests/models/test_golden.py", "tests/models/test_real.py"]
PRESET_OF = {
    ("proxyclip", "dino"): "proxyclip-b16-dino-b8",
    ("proxyclip", "dinov2"): "proxyclip-b16-dinov2-reg-b14",
    ("proxyclip", "mae"): "proxyclip-b16-mae-b16",
    ("proxyclip", "sam"): "proxyclip-b16-sam-b",
}


def run_tests() -> list[tuple[bool, dict[str, str]]]:
    """For each test: whether it passed, and the properties that it recorded."""
    with tempfile.NamedTemporaryFile(suffix=".xml") as report:
        into_report = [f"--junitxml={report.name}", "-o", "junit_family=xunit1"]
        subprocess.run([sys.executable, "-m", "pytest", "-q", "-m", "not slow", *into_report, *TESTS], cwd=ROOT)
        cases = list(ET.parse(report.name).iter("testcase"))
    if not cases or any(case.find("skipped") is not None for case in cases):
        raise SystemExit("The reference data is missing, so the table would be empty; see tests/reference.py.")
    return [
        (
            case.find("failure") is None and case.find("error") is None,
            {item.get("name", ""): item.get("value", "") for item in case.iter("property")},
        )
        for case in cases
    ]


def table(tests: list[tuple[bool, dict[str, str]]]) -> str:
    """The table in Markdown."""
    passed: Counter[tuple[str, str, str]] = Counter()
    total: Counter[tuple[str, str, str]] = Counter()
    miou = {}
    for ok, properties in tests:
        if "miou" in properties:
            miou[properties["method"]] = properties["miou"]
        elif "check" in properties:
            key = properties["method"], properties["proxy"], properties["check"]
            total[key] += 1
            passed[key] += ok

    def count(method: str, proxy: str, check: str) -> str:
        key = method, proxy, check
        return f"{passed[key]} of {total[key]}" if total[key] else ""

    rows = [(method, proxy) for method in METHODS for proxy in sorted({p for m, p, _ in total if m == method}) or [""]]
    head = ["method", "proxy", "preset", "equal to the reference", "only finite", "mIoU here", *PUBLISHED_ON]
    lines = [head, ["---"] * len(head)]
    for method, proxy in rows:
        preset = PRESET_OF.get((method, proxy), f"{method}-b16")
        published = PRESETS[preset].published_miou if preset in PRESETS else {}
        lines.append(
            [
                f"`{method}`",
                proxy,
                f"`{preset}`" if preset in PRESETS else "",
                count(method, proxy, "equal"),
                count(method, proxy, "finite"),
                miou.get(method, "") if proxy in ("", "dino") else "",
                *(str(published.get(name, "")) for name in PUBLISHED_ON),
            ]
        )
    sums = [sum(n for (*_, c), n in passed.items() if c == check) for check in ("equal", "finite")]
    lines.append(["all", "", "", *map(str, sums), *[""] * (len(head) - 5)])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> None:
    """Run the tests and write the page."""
    (ROOT / "docs" / "methods.md").write_text(f"""# Methods, and how each is tested

`python docs/make_methods_table.py` writes this page from a run of the tests; do not edit it.

The references are outputs of the methods' public implementations, with seeded random weights, in float32 on a CPU
("golden cases"). Every case runs twice, with windows one by one and in batches, so it counts twice.

- **equal to the reference**: passed tests that compare with the reference. Dense features agree within 1e-4 (relative),
  logits within 1e-4, and labels on at least 99.9 % of the pixels. With SAM, where a few similarities fall within
  rounding of the cut, 99 % of the logits agree within 1e-4.
- **only finite**: passed tests of cases where the reference itself is wrong: it scrambles windows that are not square,
  returns NaN, or crashes. These tests check only that our features are finite and that the mask has the right size.
  They do not show that the result is right.
- **mIoU here**: in percent, on 33 photographs of MSRC, measured by the tests with DeiT-Tiny as CLIP and as proxy. For
  `clip`, `maskclip`, `sclip`, `clearclip`, `naclip` and `proxyclip` the tests require the figure of an independent
  implementation, within 0.5. For `gem` and `naclip-kk` there is none; the tests keep our own figure from drifting.
- **the other columns**: published mIoU of the papers, in percent, with CLIP ViT-B/16 at each benchmark's settings
  (`--preset P --benchmark B`). They were not measured here.

No golden case covers `gem`.

{table(run_tests())}
""")


if __name__ == "__main__":
    main()
