"""Periodic syncs as the daemon runs and shows them: the plan, the two agents, the figures. Used by daemon.py only."""

from __future__ import annotations

import time
from decimal import Decimal

from .agents.activity import Activity
from .agents.scheduler import Report, Scheduler
from .api.messages import SchedulerStats
from .api.users import ScheduleView
from .config.cron import CronPattern
from .config.outlets import Scheduler as Section
from .control.deps import Scheduling
from .domain.plan import Plan, Rules
from .domain.schedule import Figures
from .ports import QueueAdmin, Schedule
from .supervisor import Child
from .telemetry import Telemetry


def plan_of(section: Section) -> Plan:
    return Plan(
        Rules(
            market_interval_s=section.market_hours_interval_s,
            off_interval_s=section.off_hours_interval_s,
            open_hour=section.market_open_hour,
            close_hour=section.market_close_hour,
            days=section.market_days,
            cron=CronPattern(section.cron) if section.cron else None,
            cron_spread_s=section.cron_spread_s,
            stale_s=section.stale_after_s,
            active_s=section.active_s,
            high_value_usd=Decimal(str(section.high_value_usd)),
        )
    )


class PeriodicSyncs:
    """Activity is noted even where this daemon runs no scheduler: another one may."""

    def __init__(self, section: Section, schedule: Schedule, queue: QueueAdmin, telemetry: Telemetry) -> None:
        self._is_enabled = section.enabled
        self._telemetry = telemetry
        self._plan = plan_of(section)
        self.activity = Activity(schedule, self._plan, time.time)
        self._scheduler = Scheduler(
            schedule,
            queue,
            self._plan,
            now=time.time,
            batch=section.batch_size,
            max_waiting=section.max_waiting,
            max_users=section.max_users,
            on_report=self._show,
        )
        self.desk = Scheduling(
            schedule=schedule,
            plan=self._plan,
            view=self.view,
            figures=self._scheduler.figures,
            stats=self.stats,
            trigger=self._trigger,
        )

    def children(self) -> tuple[Child, ...]:
        activity = Child(name="activity", body=self.activity.run, critical=False)
        if not self._is_enabled:
            return (activity,)
        return activity, Child(name="scheduler", body=self._scheduler.run, critical=False)

    def stats(self) -> SchedulerStats:
        """For /health: what dashboards know. Figures are up to half a minute old."""
        report = self._scheduler.report
        figures = report.figures or Figures(at=0.0)
        is_running = self._is_enabled and report.is_running and not report.is_paused
        return SchedulerStats(
            enabled=self._is_enabled,
            running=is_running,
            total_users=figures.users,
            active_users=figures.active_users,
            is_market_hours=self._plan.is_market(time.time()),
            next_scheduled_sync="scheduled" if is_running and figures.next_due_at is not None else "not_scheduled",
        )

    def view(self) -> ScheduleView:
        report, now = self._scheduler.report, time.time()
        return ScheduleView(
            enabled=self._is_enabled,
            running=report.is_running,
            is_market_hours=self._plan.is_market(now),
            interval=self._plan.interval(now),
            cron=self._plan.rules.cron.pattern if self._plan.rules.cron else None,
            held_back=report.is_held_back,
            rounds=report.rounds,
            missed_ticks=report.missed_ticks,
            queued=report.queued,
            skipped=report.skipped,
            missed=report.missed,
            drift=report.drift_s,
            worst_drift=report.worst_drift_s,
            last_queued_at=report.last_queued_at,
            last_error=report.last_error,
        )

    def _trigger(self) -> bool:
        if self._is_enabled:
            self._scheduler.trigger()
        return self._is_enabled

    def _show(self, report: Report) -> None:
        slots = {"queued": report.queued, "missed": report.missed} | report.skipped
        self._telemetry.schedule(drift_s=report.drift_s, is_held_back=report.is_held_back, slots=slots)
        if report.figures is not None:
            figures = report.figures
            states = {
                "registered": figures.wallets,
                "active": figures.active_wallets,
                "fresh": figures.fresh,
                "stale": figures.stale,
                "due": figures.due,
            }
            self._telemetry.freshness(figures.fresh_ratio, states)
