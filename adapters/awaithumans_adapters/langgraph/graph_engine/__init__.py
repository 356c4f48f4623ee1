"""The engine for graphs that run in the process of the relay.

The path of an answer:

1. `engine`: `GraphEngine.deliver_recorded` moves to the event loop of the graphs and calls `_resume_and_report`.
2. `deliveries`: `Deliveries.deliver` takes the thread's lock and a slot, and calls `_act_on_case`.
3. `facts`: `GraphFacts.read` reads each fact that `delivery.classification.classify` asks for.
4. `delivery.rules`: `rule_of` says which action follows from the case.
5. `run`: `ThreadRun.resume` or `run_on` stores the answers, records the start of the run, and runs the graph.
6. `stored_thread`: `StoredAnswers` lets the run's first checkpoint read wait until this is stored.
7. `deliveries`: failures are counted in `FailedRuns`, and the answer is remembered as delivered.
8. `adoption`: interrupts at which the thread waits now get tasks.
9. `engine`: `on_result` is called. Then `TargetGone` is raised if the thread did not take the answer.
"""
