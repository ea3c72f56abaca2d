// Package metrics exports what rocketflow does as Prometheus metrics. It has a listener for each concept, to set in its
// Config. An fx application that provides a prometheus.Registerer gets all of them from package rocketflowfx and needs
// nothing from here.
//
//	m := metrics.New(prometheus.DefaultRegisterer)
//	box, err := outbox.New(outbox.Config{..., Listener: m.Outbox()})
//	...
//	m.ObserveBacklog(box)
//
// deploy/prometheus has alert rules on these metrics and deploy/grafana a dashboard, both made by deploy/monitoring; docs/runbook.md has
// an entry for each alert.
//
// # Metrics of the outbox
//
//	rocketflow_outbox_events_recorded_total{topic,type}               events recorded in transactions, committed or not
//	rocketflow_outbox_transactions_total{outcome}                     committed, rolled_back, unknown
//	rocketflow_outbox_half_message_prepare_duration_seconds{outcome}  histogram: storing a half message; ok, failed
//	rocketflow_outbox_half_message_end_duration_seconds{outcome}      histogram: ending one, response included; ok, failed
//	rocketflow_outbox_relay_sends_total{outcome,origin}               events that the relay tried to send; outcome: ok, failed;
//	                                                                  origin: transaction, sweep
//	rocketflow_outbox_events_sent_total{path}                         events that the broker has; half_message, relay
//	rocketflow_outbox_relay_group_events                              histogram: events in one request of the relay
//	rocketflow_outbox_relay_path_active                               gauge: 1 while most transactions take the relay path
//	rocketflow_outbox_breaker_open                                    gauge: 1 while the breaker is open
//	rocketflow_outbox_path_changes_total{to,reason}                   to: half_messages, relay; reason: pinned, busy, free,
//	                                                                  breaker_open, breaker_closed
//	rocketflow_outbox_events_rejected_total{topic}                    events that the broker rejected and that stay owed
//	rocketflow_outbox_relay_overflows_total                           events left to the sweep: the relay's memory was full
//	rocketflow_outbox_acknowledgements_total{outcome}                 acknowledgements written; ok, failed
//	rocketflow_outbox_checkbacks_total{decision}                      commit, rollback, unknown
//	rocketflow_outbox_events_resent_total                             events resent to consumers that requested them
//	rocketflow_outbox_missing_events_requests_total{outcome}          requests received; resent, gone, refused, failed
//	rocketflow_outbox_rows_expired_total                              old rows deleted that no partition covers
//	rocketflow_outbox_partition_changes_total{change}                 created, dropped
//	rocketflow_outbox_half_messages_discarded_total                   half messages that the broker discarded unanswered
//	rocketflow_outbox_sweep_duration_seconds                          histogram: one pass of the sweep
//	rocketflow_outbox_backlog_events                                  gauge: owed events, read at each scrape
//	rocketflow_outbox_backlog_age_seconds                             gauge: age of the oldest owed event
//
// # Metrics of handlers
//
//	rocketflow_handlers_events_total{consumer,outcome}                handled, duplicate, skipped, discarded, gap, parked,
//	                                                                  unhandled, busy, paused, retried, dead_letter
//	rocketflow_handlers_missing_events_requests_total{consumer,outcome}  requests sent to publishers; ok, failed
//	rocketflow_handlers_handler_duration_seconds{consumer,type}       histogram: calls of handlers
//	rocketflow_handlers_latency_seconds{consumer}                     histogram: from recording to the handler's commit
//	rocketflow_handlers_parked_events{consumer,reason}                gauge: parked events, read at each scrape; dead, retry, gap,
//	                                                                  busy, paused, unhandled
//	rocketflow_handlers_parked_age_seconds{consumer,reason}           gauge: since the oldest of them was parked
//	rocketflow_handlers_unread_messages{consumer,topic}               gauge: messages that the consumer's group has not read, asked of the
//	                                                                  broker at each scrape. A topic without an answer within 2 s has none
//	rocketflow_handlers_unread_age_seconds{consumer,topic}            gauge: since the oldest of them was stored; 0: none is unread. Not
//	                                                                  known of a group that has never read
//	rocketflow_handlers_batch_events{consumer}                        histogram: events in one transaction of a lane
//	rocketflow_handlers_panics_total{consumer}                        calls that panicked
//	rocketflow_handlers_unresponsive_total{consumer,type}             calls abandoned: they ignored the end of their context
//	rocketflow_handlers_paused{consumer,kind}                         gauge: what operators have paused; consumer, handler, stream
//	rocketflow_handlers_stalls_total{consumer}                        times that PostgreSQL could not be used
//
// # Metrics of timeouts and sagas
//
//	rocketflow_timeout_changes_total{change}                          armed, disarmed, handed_over, hand_over_failed,
//	                                                                  recovered, fired, too_early, stale, stuck
//	rocketflow_timeout_lateness_seconds                               histogram: from the due instant to the firing
//	rocketflow_timeout_armed                                          gauge: armed timeouts, read at each scrape
//	rocketflow_timeout_overdue                                        gauge: those that are due and have not fired
//	rocketflow_timeout_overdue_age_seconds                            gauge: since the oldest of them was due
//	rocketflow_timeout_stuck                                          gauge: those whose events were sent often and not handled
//	rocketflow_saga_running{saga,state}                               gauge: sagas that have not finished
//	rocketflow_saga_oldest_age_seconds{saga,state}                    gauge: how long a saga has been in the state at most
//	rocketflow_saga_transitions_total{saga,from,to,cause}             cause: event, deadline
//	rocketflow_saga_events_ignored_total{saga,reason}                 events that a saga ignored
//	rocketflow_saga_waiting_events_total{saga,outcome}                waiting, retried, failed, expired
//
// # Metrics of the reconciliation
//
// Of the processes that are configured to reconcile, the one that does has values.
//
//	rocketflow_reconciliation_events{service,consumer,state}          gauge: events that are not handled; waiting, missing,
//	                                                                  unknown (waiting or missing). Alert on missing > 0
//	rocketflow_reconciliation_uncompared{what}                        gauge: what could not be compared; schemas that can't be
//	                                                                  read, events that are unknown, types without a consumer
//	                                                                  that was read, partial: 1 if not all events were read
//	rocketflow_reconciliation_passes_total{outcome}                   ok, failed
//
// # Metrics of the driver
//
//	rocketflow_broker_up{broker}                                      gauge: 1 while the driver's own connection is open
//	rocketflow_broker_consumer_restarts_total                         consumers restarted, such as after a broker came back
//	rocketflow_broker_deliveries_held_total{group}                    messages held for another attempt
//	rocketflow_broker_stored_less_safely_total{broker,reason}         messages that a broker has stored, but not flushed or
//	                                                                  replicated as it is set to
//
// # Metrics of the doctor
//
//	rocketflow_doctor_finding{code,severity}                          gauge: findings of the last examination, 0 if there are none
//	rocketflow_doctor_unknown{code}                                   gauge: answers of checks that could not look
//	rocketflow_doctor_examined_timestamp_seconds                      gauge: when the last examination began
//
// Metrics without a type here are counters. Label values come from code and configuration, never from data, so the number
// of series is bounded.
package metrics
