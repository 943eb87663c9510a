"""What `proxyclip status` says, in words and as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict

from proxyclip.dataset.upkeep.status import Status


def status_text(found: Status) -> str:
    """How far a run is, in a few lines."""
    totals = found.totals
    if not totals.shards:
        return "Begun; nothing is planned yet."
    done = totals.labelled + totals.failed
    lines = [
        f"{'Features only, no masks: ' if found.only_features else ''}{done:,} of {totals.planned:,} images, "
        f"{totals.committed:,} of {totals.shards:,} shards; {totals.failed:,} images failed."
    ]
    if found.finished:
        lines.append("Finished.")
    elif found.last_commit_s is not None:
        rate = f"{found.images_per_s:.1f} images/s" if found.images_per_s else "rate not known yet"
        left = f", {_duration(found.left_s)} left" if found.left_s is not None else ""
        lines.append(f"Not finished: {rate}{left}; the last commit was {_duration(found.last_commit_s)} ago.")
    else:
        lines.append("Not finished: nothing is committed yet.")
    if found.features is not None:
        lines.append(str(found.features))
    return "\n".join(lines)


def status_json(found: Status) -> str:
    """The same as one line of JSON. Durations are in seconds; what is not known is null."""
    features = None if found.features is None else asdict(found.features.totals) | {"complete": found.features.complete}
    fields = {
        **asdict(found.totals),
        "finished": found.finished,
        "only_features": found.only_features,
        "images_per_s": found.images_per_s,
        "left_s": found.left_s,
        "last_commit_s": found.last_commit_s,
        "features": features,
        "failures": [
            {"status": status, "reason": reason, "images": count}
            for (status, reason), count in found.failures.most_common()
        ],
    }
    return json.dumps(fields, ensure_ascii=False)


def _duration(seconds: float) -> str:
    """A duration in its two largest units."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    parts = [f"{count} {unit}" for count, unit in ((days, "d"), (hours, "h"), (minutes, "min"), (rest, "s")) if count]
    return " ".join(parts[:2]) or "0 s"
