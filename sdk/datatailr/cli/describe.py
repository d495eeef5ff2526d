"""A job for people: what `dt job get` prints when no JSON is asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from datatailr.cli.output import duration_text, print_aligned, print_table, size_text, time_text

if TYPE_CHECKING:
    from datatailr.v1 import job_pb2


def describe_job(job: job_pb2.Job, answer: dict[str, Any], *, utc: bool) -> None:
    """Print a version of a job, and its tasks if the answer has them.

    Args:
        job: The message, for what the JSON form does not hold.
        answer: The same as `datatailr.client.answers.job_answer` gives it.
        utc: Show times in UTC.
    """
    definition = job.definition
    image = answer["image"]
    requirements = [line for line in image["python_requirements"].splitlines() if line.strip()]
    code = [image[key] for key in ("path_to_module", "branch_name", "commit_hash") if image[key] != "unknown"]
    rows = [
        ("Name", answer["name"]),
        ("Display name", answer["display_name"]),
        ("Id", answer["id"]),
        ("Type", answer["type"]),
        ("Environment", answer["environment"]),
        ("Version", f"{answer['version']}{' (removed)' if job.removed else ''}"),
        ("State", answer["state"]),
        ("Saved", f"{time_text(answer['create_time'], utc=utc)} by {job.created_by or '-'}"),
        ("Runs as", answer["run_as"]),
        ("Resources", f"{size_text(answer['memory'])}, {answer['cpu']:g} CPU"),
        ("Schedule", _schedule(job)),
        ("Tasks", str(job.task_count)),
        ("Python", image["python_version"] + (f" ({job.image_notice})" if job.image_notice else "")),
        ("Requirements", ", ".join(requirements) or "-"),
        ("Code", " ".join(filter(None, code))),
    ]

    if definition.fail_after:
        rows.append(("Fails after", duration_text(definition.fail_after)))

    if definition.expire_after:
        rows.append(("Expires after", duration_text(definition.expire_after)))

    if answer["entrypoint"]:
        rows.append(("Entrypoint", answer["entrypoint"]))

    if job.HasField("cause"):
        rows.append(("Because", job.cause.message.partition("\n")[0]))

    print_aligned([(label, value or "-") for label, value in rows])

    if "children_full" not in answer:
        return

    print()
    print_table(
        ("TASK", "NAME", "WAITS FOR", "MEMORY", "CPU", "ENTRYPOINT"),
        [
            (
                str(task["child_number"]),
                task["display_name"],
                ", ".join(map(str, task["depends_on"])) or "-",
                size_text(task["memory"]),
                f"{task['cpu']:g}",
                task["entrypoint"],
            )
            for task in answer["children_full"]
        ],
    )


def _schedule(job: job_pb2.Job) -> str:
    schedule = job.definition.schedule
    parts = []

    if schedule.cron:
        parts.append(f"{schedule.cron} ({schedule.timezone or 'UTC'})")

    before = schedule.run_after_job_id or schedule.run_after_job_name

    if before:
        parts.append(f"after {before} ({schedule.run_after_condition or 'success'})")

    return ", ".join(parts) or "-"
