"""Write docs/methods.md: what each method is held against, from a run of the tests. Needs the reference data.

python docs/make_methods_table.py
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from collections import Counter
from pathlib import Path

from proxyclip.models.attention import METHODS
from proxyclip.recipes.presets import PRESETS, PUBLISHED_ON

ROOT = Path(__file__).resolve().parents[1]
PRESET_OF = {
    ("proxyclip", "dino"): "proxyclip-b16-dino-b8",
    ("proxyclip", "dinov2"): "proxyclip-b16-dinov2-reg-b14",
    ("proxyclip", "mae"): "proxyclip-b16-mae-b16",
    ("proxyclip", "sam"): "proxyclip-b16-sam-b",
}


def run_tests() -> list[tuple[str, bool, dict[str, str]]]:
    """Name, outcome and recorded properties of each test of the golden cases and the real photographs."""
    with tempfile.NamedTemporaryFile(suffix=".xml") as report:
        tests = ["tests/test_golden.py", "tests/test_real.py"]
        subprocess.run([sys.executable, "-m", "pytest", "-q", f"--junitxml={report.name}", *tests], cwd=ROOT)
        cases = list(ET.parse(report.name).iter("testcase"))
    if any(case.find("skipped") is not None for case in cases):
        raise SystemExit("The reference data is not here; the table would be empty.")
    return [
        (
            case.get("name", ""),
            case.find("failure") is None and case.find("error") is None,
            {item.get("name", ""): item.get("value", "") for item in case.iter("property")},
        )
        for case in cases
    ]


def table(tests: list[tuple[str, bool, dict[str, str]]]) -> str:
    """The table in Markdown."""
    passed: Counter[tuple[str, str]] = Counter()
    total: Counter[tuple[str, str]] = Counter()
    miou = {}
    for _, ok, properties in tests:
        if "miou" in properties:
            miou[properties["method"]] = properties["miou"]
        elif "method" in properties:
            key = properties["method"], "" if properties["proxy"] == "None" else properties["proxy"]
            total[key] += 1
            passed[key] += ok
    rows = [(method, proxy) for method in METHODS for proxy in sorted(p for m, p in total if m == method) or [""]]
    head = ["method", "proxy", "preset", "golden cases passed", "mIoU here", *PUBLISHED_ON]
    lines = [head, ["---"] * len(head)]
    for method, proxy in rows:
        preset = PRESET_OF.get((method, proxy), f"{method}-b16")
        published = PRESETS[preset].published_miou if preset in PRESETS else {}
        cases = f"{passed[method, proxy]} of {total[method, proxy]}" if total[method, proxy] else "none"
        here = miou.get(method, "") if proxy in ("", "dino") else ""
        shown = [f"`{preset}`" if preset in PRESETS else "", cases, here]
        lines.append([f"`{method}`", proxy, *shown, *(str(published.get(name, "")) for name in PUBLISHED_ON)])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> None:
    (ROOT / "docs" / "methods.md").write_text(f"""# Methods, and what each is held against

Made by `python docs/make_methods_table.py` from a run of the tests; do not edit.

- **golden cases passed**: outputs of the public implementations with seeded weights, in float32 on a CPU, each with
  windows one by one and in batches (so every case counts twice). Dense features within 1e-4 relative, logits within
  1e-4, labels equal on 99.9 % of the pixels. GEM has none.
- **mIoU here**: 33 photographs of MSRC, DeiT-Tiny as both towers, measured by the tests. It is not CLIP; the figures of
  `clip`, `maskclip`, `sclip`, `clearclip`, `naclip` and `proxyclip` are those of an independent implementation.
- **published mIoU**: of the papers, CLIP ViT-B/16, at each benchmark's settings (`--preset P --benchmark B`).

{table(run_tests())}
""")


if __name__ == "__main__":
    main()
