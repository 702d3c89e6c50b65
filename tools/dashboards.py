"""Generate the Grafana dashboards of charts/agentqueue/dashboards, with one panel per question.

Queries of workers' metrics use the labels `agentqueue` and `agent`, which the PodMonitor adds. The operator's series
have the label of its pod. Two pods may export the same agent while leadership changes, so `_per_agent`, `_over_agents`
and `_increase_rate` take the maximum of all pods.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from grafana_foundation_sdk.builders import prometheus, stat, timeseries
from grafana_foundation_sdk.builders.common import VizLegendOptions
from grafana_foundation_sdk.builders.dashboard import Dashboard, DatasourceVariable, QueryVariable, Row
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import BigValueColorMode, LegendDisplayMode, LegendPlacement
from grafana_foundation_sdk.models.dashboard import DataSourceRef, VariableRefresh, VariableSort

SOURCE: Final = DataSourceRef(type_val="prometheus", uid="${datasource}")
AGENTS: Final = 'namespace=~"$namespace",agentqueue=~"$agentqueue",agent=~"$agent"'
BY: Final = "namespace, agentqueue, agent"
WIDTH, HEIGHT, LOW = 8, 8, 4


@dataclass(frozen=True, slots=True)
class Panel:
    """A panel: its question, its unit, and its PromQL queries by legend. `figure` shows only the latest value."""

    title: str
    answers: str
    unit: str
    queries: Mapping[str, str]
    figure: bool = False


def _figure(title: str, answers: str, unit: str, query: str) -> Panel:
    return Panel(title, answers, unit, {"": query}, figure=True)


def _per_agent(metric: str) -> dict[str, str]:
    return {"{{agentqueue}} {{agent}}": f"max by ({BY}) ({metric}{{{AGENTS}}})"}


def _over_agents(metric: str) -> str:
    return f"sum(max by ({BY}) ({metric}{{{AGENTS}}}))"


def _increase_rate(metric: str, by: str = BY, kept: str = BY, of: str = "") -> str:
    """Return a query for the rate of a counter that each queue's Redis keeps.

    Args:
        metric: the counter.
        by: labels of the result. If empty, the total.
        kept: all labels of the counter except the operator's pod.
        of: additional matchers.
    """
    rate = f"max by ({kept}) (rate({metric}{{{AGENTS}{of}}}[$__rate_interval]))"
    return f"sum by ({by}) ({rate})" if by else f"sum({rate})"


def _ends(by: str = BY, of: str = "") -> str:
    return _increase_rate("agentqueue_queue_outcomes_total", by, f"{BY}, outcome", of)


def _sum(metric: str) -> str:
    """Return a query for the sum over all worker pods."""
    return f"sum({metric}{{{AGENTS}}})"


def _rate(metric: str, by: str, more: str = "") -> str:
    return f"sum by ({by}) (rate({metric}{{{AGENTS}{more}}}[$__rate_interval]))"


def _quantiles(metric: str, labels: str = "") -> dict[str, str]:
    by_bound = f"sum by (le) (rate({metric}_bucket{{{labels}}}[$__rate_interval]))"
    return {f"p{percent}": f"histogram_quantile({percent / 100}, {by_bound})" for percent in (50, 95, 99)}


QUEUES: Final[Mapping[str, Sequence[Panel]]] = {
    "Now": (
        _figure("Waiting", "Ready jobs without a free slot.", "short", _over_agents("agentqueue_queue_waiting_jobs")),
        _figure(
            "Oldest waiting",
            "Waiting time of the oldest ready job.",
            "s",
            f"max(agentqueue_queue_oldest_waiting_seconds{{{AGENTS}}})",
        ),
        _figure("Running", "Running jobs.", "short", _over_agents("agentqueue_queue_active_jobs")),
        _figure("Dead letters", "Stored dead letters.", "short", _over_agents("agentqueue_queue_dead_letters")),
        _figure("Pods ready", "Ready worker pods.", "short", _over_agents("agentqueue_agent_ready_replicas")),
        _figure(
            "Queues not readable",
            "Queues that the operator can't read. It does not scale them down.",
            "short",
            f"count(max by ({BY}) (agentqueue_queue_readable{{{AGENTS}}}) == 0) or vector(0)",
        ),
    ),
    "Queues": (
        Panel("Waiting jobs", "Is there a backlog?", "short", _per_agent("agentqueue_queue_waiting_jobs")),
        Panel(
            "Oldest waiting job",
            "How long do jobs wait? Compare with targetWaitSeconds.",
            "s",
            _per_agent("agentqueue_queue_oldest_waiting_seconds"),
        ),
        Panel(
            "Delayed jobs",
            "How many jobs are scheduled for later?",
            "short",
            _per_agent("agentqueue_queue_delayed_jobs"),
        ),
        Panel(
            "Suspended jobs",
            "How many jobs wait without a slot, for a signal, a time or their children?",
            "short",
            _per_agent("agentqueue_queue_suspended_jobs"),
        ),
        Panel(
            "Wait before the start",
            "How long had jobs waited at their start? The target is the lowest targetWaitSeconds.",
            "s",
            {
                **{
                    f"p{percent}": f"histogram_quantile({percent / 100}, "
                    + _increase_rate("agentqueue_queue_wait_seconds_bucket", "le", f"{BY}, le")
                    + ")"
                    for percent in (50, 90, 99)
                },
                "target": f"min(max by ({BY}) (agentqueue_agent_target_wait_seconds{{{AGENTS}}}))",
            },
        ),
        Panel(
            "Share of jobs that waited longer than 30 s",
            "Do agents keep up? The default of targetWaitSeconds is 30 s.",
            "percentunit",
            {
                "{{agentqueue}} {{agent}}": "1 - "
                + _increase_rate("agentqueue_queue_wait_seconds_bucket", of=',le="30.0"')
                + " / "
                + _increase_rate("agentqueue_queue_wait_seconds_count")
            },
        ),
        Panel(
            "Wait before the start, by priority, mean",
            "Which priorities wait?",
            "s",
            {
                "{{priority}}": _rate("agentqueue_job_wait_seconds_sum", "priority")
                + " / "
                + _rate("agentqueue_job_wait_seconds_count", "priority")
            },
        ),
    ),
    "Jobs": (
        Panel(
            "Runs by outcome",
            "How many runs end per second, and with which outcome? retried, dead and crashed are failures.",
            "ops",
            {"{{outcome}}": _ends("outcome")},
        ),
        Panel(
            "Jobs in and out",
            "Are jobs enqueued faster than they finish?",
            "ops",
            {
                "enqueued": _increase_rate("agentqueue_queue_enqueued_jobs_total", by=""),
                "ended": _ends("", of=',outcome=~"completed|dead|cancelled"'),
            },
        ),
        Panel("Run time", "How long do runs take?", "s", _quantiles("agentqueue_job_duration_seconds", AGENTS)),
        Panel(
            "Run time by job, mean",
            "Which jobs take long?",
            "s",
            {
                "{{agent}} {{job_name}}": _rate("agentqueue_job_duration_seconds_sum", "agent, job_name")
                + " / "
                + _rate("agentqueue_job_duration_seconds_count", "agent, job_name")
            },
        ),
        Panel(
            "Share of runs that fail, by job",
            "Which handlers raise?",
            "percentunit",
            {
                "{{agent}} {{job_name}}": _rate("agentqueue_jobs_total", "agent, job_name", ',outcome=~"retried|dead"')
                + " / "
                + _rate("agentqueue_jobs_total", "agent, job_name")
            },
        ),
        Panel(
            "Dead letters by agent",
            "Which dead letters could be replayed?",
            "short",
            _per_agent("agentqueue_queue_dead_letters"),
        ),
        Panel(
            "Jobs that die",
            "Which agents produce dead letters? Replayed and discarded ones count too.",
            "ops",
            {"{{agentqueue}} {{agent}}": _ends(of=',outcome="dead"')},
        ),
        Panel(
            "Outcomes lost",
            "Runs that lost their lease, so another worker had the job.",
            "ops",
            {"{{agentqueue}} {{agent}}": _increase_rate("agentqueue_queue_lost_outcomes_total")},
        ),
    ),
    "Workers": (
        Panel(
            "Pods",
            "Are there as many ready pods as desired?",
            "short",
            {
                "desired": _over_agents("agentqueue_agent_desired_replicas"),
                "ready": _over_agents("agentqueue_agent_ready_replicas"),
                "draining": _over_agents("agentqueue_agent_draining_replicas"),
                "unschedulable": _over_agents("agentqueue_agent_unschedulable_replicas"),
            },
        ),
        Panel(
            "Slots",
            "How busy are the pods?",
            "short",
            {"slots": _sum("agentqueue_worker_slots"), "busy": _sum("agentqueue_jobs_in_progress")},
        ),
        Panel(
            "Scaling decisions, by reason",
            "Why did the number of pods change?",
            "short",
            {
                "{{agent}} {{reason}}": "sum by (agent, reason) "
                f'(increase(agentqueue_scale_decisions_total{{{AGENTS},decision="ScaleTo"}}[$__rate_interval])) > 0'
            },
        ),
        Panel(
            "Loop lag",
            "Does a handler block its worker? The worker's other jobs make no progress meanwhile.",
            "s",
            {"{{pod}}": f"max by (pod) (agentqueue_loop_lag_seconds{{{AGENTS}}})"},
        ),
        Panel(
            "Since the last renewal",
            "Can workers reach Redis? Their leases expire after 8 s.",
            "s",
            {"{{pod}}": f"max by (pod) (agentqueue_renewal_age_seconds{{{AGENTS}}})"},
        ),
        Panel(
            "Round trips to Redis",
            "How long does a round trip take that reports finished jobs and claims new ones?",
            "s",
            _quantiles("agentqueue_round_trip_duration_seconds", AGENTS),
        ),
    ),
}

OPERATOR: Final[Mapping[str, Sequence[Panel]]] = {
    "Now": (
        _figure(
            "Leaders",
            "Leading replicas. If it is not 1, nothing is reconciled.",
            "short",
            "sum(agentqueue_operator_leader)",
        ),
        _figure(
            "AgentQueues", "AgentQueues that the operator manages.", "short", "max(agentqueue_operator_agentqueues)"
        ),
        _figure("Watches down", "Kinds that can't be watched.", "short", "max(agentqueue_operator_watches_down)"),
    ),
    "Reconciles": (
        Panel(
            "Reconciles",
            "Reconciles per second.",
            "ops",
            {"reconciles": "sum(rate(agentqueue_operator_reconcile_duration_seconds_count[$__rate_interval]))"},
        ),
        Panel(
            "Reconcile duration",
            "Duration of a reconcile.",
            "s",
            _quantiles("agentqueue_operator_reconcile_duration_seconds"),
        ),
        Panel(
            "Failed reconciles",
            "Failed reconciles per second, by error.",
            "ops",
            {"{{error}}": "sum by (error) (rate(agentqueue_operator_reconcile_errors_total[$__rate_interval]))"},
        ),
        Panel(
            "AgentQueues waiting for a reconcile",
            "If this grows, the operator does not keep up.",
            "short",
            {"AgentQueues": "max(agentqueue_operator_work_queue_depth)"},
        ),
        Panel(
            "Age of the most overdue reconcile",
            "Time since the reconcile should have begun.",
            "s",
            {"{{pod}}": "max by (pod) (agentqueue_operator_oldest_reconcile_seconds)"},
        ),
        Panel(
            "Requests to the API server",
            "Load on the cluster. Code 0: no response.",
            "ops",
            {
                "{{verb}} {{resource}} {{code}}": "sum by (verb, resource, code) "
                "(rate(agentqueue_operator_api_requests_total[$__rate_interval]))"
            },
        ),
    ),
    "Process": (
        Panel(
            "CPU",
            "Cores in use.",
            "short",
            {
                "{{pod}}": "sum by (pod) (rate(process_cpu_seconds_total[$__rate_interval])"
                " and on (pod, namespace) agentqueue_operator_leader)"
            },
        ),
        Panel(
            "Memory",
            "Resident memory.",
            "bytes",
            {
                "{{pod}}": "max by (pod) "
                "(process_resident_memory_bytes and on (pod, namespace) agentqueue_operator_leader)"
            },
        ),
        Panel(
            "Loop lag",
            "Time since the event loop last made progress.",
            "s",
            {"{{pod}}": "max by (pod) (agentqueue_operator_loop_lag_seconds)"},
        ),
    ),
}


def queues() -> str:
    """Return the dashboard of the queues, their jobs and workers."""
    variables = (
        _variable("namespace", "agentqueue_agent_desired_replicas", "Namespace"),
        _variable("agentqueue", 'agentqueue_agent_desired_replicas{namespace=~"$namespace"}', "AgentQueue"),
        _variable(
            "agent", 'agentqueue_agent_desired_replicas{namespace=~"$namespace",agentqueue=~"$agentqueue"}', "Agent"
        ),
    )
    return _json("AgentQueue: queues", "agentqueue-queues", QUEUES, variables)


def operator() -> str:
    """Return the dashboard of the operator."""
    return _json("AgentQueue: operator", "agentqueue-operator", OPERATOR, ())


DASHBOARDS: Final[Mapping[str, Callable[[], str]]] = {
    "charts/agentqueue/dashboards/queues.json": queues,
    "charts/agentqueue/dashboards/operator.json": operator,
}


def _json(title: str, uid: str, rows: Mapping[str, Sequence[Panel]], variables: Sequence[QueryVariable]) -> str:
    made = Dashboard(title).uid(uid).tags(["agentqueue"]).refresh("30s").time("now-1h", "now").editable()
    made = made.with_variable(DatasourceVariable("datasource").label("Data source").type("prometheus"))
    for variable in variables:
        made = made.with_variable(variable)
    for name, panels in rows.items():
        made = made.with_row(Row(name))
        for panel in panels:
            made = made.with_panel(_stat_of(panel, 24 // len(panels)) if panel.figure else _timeseries_of(panel))
    return JSONEncoder(sort_keys=True, indent=2).encode(made.build()) + "\n"


def _variable(label: str, metric: str, title: str) -> QueryVariable:
    return (
        QueryVariable(label)
        .label(title)
        .datasource(SOURCE)
        .query(f"label_values({metric}, {label})")
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(VariableSort.ALPHABETICAL_ASC)
        .multi(multi=True)
        .include_all(include_all=True)
        .all_value(".*")
    )


def _timeseries_of(panel: Panel) -> timeseries.Panel:
    legend = VizLegendOptions().display_mode(LegendDisplayMode.LIST).placement(LegendPlacement.BOTTOM)
    made = timeseries.Panel().title(panel.title).description(panel.answers).datasource(SOURCE)
    made = made.unit(panel.unit).min(0).legend(legend.show_legend(show_legend=True)).height(HEIGHT).span(WIDTH)
    for target in _targets(panel):
        made = made.with_target(target)
    return made


def _stat_of(panel: Panel, width: int) -> stat.Panel:
    made = stat.Panel().title(panel.title).description(panel.answers).datasource(SOURCE)
    made = made.unit(panel.unit).color_mode(BigValueColorMode.NONE).height(LOW).span(width)
    for target in _targets(panel):
        made = made.with_target(target)
    return made


def _targets(panel: Panel) -> list[prometheus.Dataquery]:
    return [
        prometheus.Dataquery().expr(query).legend_format(legend).ref_id(chr(ord("A") + at))
        for at, (legend, query) in enumerate(panel.queries.items())
    ]
