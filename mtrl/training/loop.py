"""The training loop of every agent."""

from __future__ import annotations

from mtrl.reducer import ALONE, Reducer

from .agent import Agent
from .run_recorder import RunRecorder
from .sources import Source


def learn(agent: Agent, source: Source, run: RunRecorder, reducer: Reducer = ALONE) -> bool:
    """Collects and learns until the run's budget is spent; True when it is, False when stopped before.

    Resumes from the newest checkpoint; where the source can be restored exactly and the replay was saved,
    what is logged from then on equals an uninterrupted run. Every rank calls this with its own source and
    recorder; the ranks stop, raise and skip together.
    """
    try:
        run.resume(agent, source, reducer)
        while not run.finished:
            if not agent.due(run.steps_for_updates, reducer):
                run.collect(agent, source, reducer)
            for _ in range(min(agent.due(run.steps_for_updates, reducer), run.interval)):
                run.add(agent.update(reducer))
            source.publish(agent, run.steps)
            for step, result in run.evaluations(agent, reducer):
                agent.on_evaluation(step, result)
            run.record(agent, source, reducer)
        return run.complete
    except BaseException as error:
        reducer.withdraw(error)
        raise
    finally:
        source.close()
