package console

import "github.com/rocketflow/rocketflow/operate"

// kind describes an Action that changes rows of a service.
type kind struct {
	audited operate.Action // as the audit names it
	verb    string         // what the button of the form says
	thing   string         // what it changes: one of them
	about   string         // what it does, on the form
	done    string         // what has become of them, on the page after it
	final   bool           // it can't be undone
}

// kinds are the actions that change rows of a service.
var kinds = map[Action]kind{
	Retry: {
		audited: operate.ActionRetryDeadLetters, verb: "Retry", thing: "dead letter",
		about: "Their handlers are called again within seconds, with the attempts counted from 0. One that fails until its last attempt becomes a dead letter again.",
		done:  "made due: the processes of the consumer handle it within seconds",
	},
	Edit: {
		audited: operate.ActionEditDeadLetter, verb: "Edit and retry", thing: "dead letter",
		about: "The handlers of this consumer get the new content, at once and with the attempts counted from 0; other consumers have the event as it was published. The event keeps its id and its place in its stream. What was delivered is kept beside it.",
		done:  "edited and made due: the processes of the consumer handle it within seconds",
	},
	Discard: {
		audited: operate.ActionDiscardDeadLetters, verb: "Discard", thing: "dead letter", final: true,
		about: "They count as handled although they had no effect, and are deleted. The events that wait behind them are handled then. Of a stream, only a dead letter that is the first parked event is discarded. This can't be undone.",
		done:  "discarded",
	},
	AcceptGap: {
		audited: operate.ActionAcceptGap, verb: "Accept the gap", thing: "gap", final: true,
		about: "The event is handled although the one before it in its stream is missing, and so are those that wait behind it. What the missing one would have done is not done. If it comes after all, it becomes a dead letter that no event waits for. Send it again instead if a service still has it. This can't be undone.",
		done:  "accepted: the event is due, and those behind it follow",
	},
	Resend: {
		audited: operate.ActionResend, verb: "Send again", thing: "event",
		about: "The event goes to the broker once more, unchanged. Consumers that have handled it recognize it as a duplicate, as long as they remember it.",
		done:  "sent to the broker again",
	},
	RetryRejected: {
		audited: operate.ActionRetryRejected, verb: "Retry", thing: "rejected event",
		about: "They are sent to the broker within seconds, instead of at the time of their next attempt. Mend the cause first: create the topic, or give the right. Of a topic all of whose events are rejected, one is tried first, and the others follow if the broker takes it.",
		done:  "made due: the service sends it within seconds",
	},
	RedirectRejected: {
		audited: operate.ActionRedirectRejected, verb: "Redirect", thing: "rejected event", final: true,
		about: "They go to another topic instead. They keep id, type, subject and body, and take the next place of their stream there, in their order. In the old topic an event of type " + operate.DiscardedType + " takes the place of each ordered one, so that consumers don't wait for it. This can't be undone.",
		done:  "redirected: the service sends it within seconds",
	},
	DiscardRejected: {
		audited: operate.ActionDiscardRejected, verb: "Discard", thing: "rejected event", final: true,
		about: "They are never sent: no consumer gets them. In their stream an event of type " + operate.DiscardedType + ", which has the reason in its body, takes the place of each ordered one, so that consumers don't wait for it. The table outbox_discarded keeps them for a while. This can't be undone.",
		done:  "discarded",
	},
	ApplyEvent: {
		audited: operate.ActionApplyToSaga, verb: "Apply the event", thing: "event", final: true,
		about: "This saga alone gets a new event, such as one that another system has lost: it is not published. It is applied within seconds if the state of the saga takes it, and otherwise waits for a state that does. An event that no later state takes is ignored. This can't be undone.",
		done:  "given to the saga: it is among the waiting events until the saga has taken it",
	},
	RetryWaiting: {
		audited: operate.ActionRetryWaiting, verb: "Retry", thing: "waiting event",
		about: "The saga is offered them again within seconds, with the attempts counted from 0. One that had expired waits as long as before, and an hour at least.",
		done:  "made due: the processes of the saga take it within seconds",
	},
	DiscardWaiting: {
		audited: operate.ActionDiscardWaiting, verb: "Discard", thing: "waiting event", final: true,
		about: "They are deleted, and their sagas never get them. The events that wait behind them are taken then. This can't be undone.",
		done:  "discarded",
	},
	Pause: {
		audited: operate.ActionPause, verb: "Pause", thing: "pause",
		about: "It holds in all processes, also after a restart, until somebody resumes it. Nothing is lost or handled out of order. Events of a paused consumer stay at the broker, which keeps them for a limited time; those of a paused handler or stream are parked in Postgres.",
		done:  "begun",
	},
	Resume: {
		audited: operate.ActionResume, verb: "Resume", thing: "pause",
		about: "The processes of the service go on within a second, with the events in their order.",
		done:  "ended",
	},
	FireTimeout: {
		audited: operate.ActionFireTimeout, verb: "Fire", thing: "timeout",
		about: "It is due now: its event is sent within about a second, and it fires once, as at any time.",
		done:  "made due",
	},
	MoveTimeout: {
		audited: operate.ActionMoveTimeout, verb: "Move", thing: "timeout",
		about: "It fires at the new time instead. A time in the past is due at once.",
		done:  "moved",
	},
	DisarmTimeout: {
		audited: operate.ActionDisarmTimeout, verb: "Disarm", thing: "timeout", final: true,
		about: "It never fires. A saga whose deadline is disarmed stays in its state until an event moves it. This can't be undone.",
		done:  "disarmed",
	},
}

// many reports whether an action changes all that its filter matches, and not one thing alone.
func (a Action) many() bool {
	switch a {
	case Retry, Discard, RetryRejected, RedirectRejected, DiscardRejected, RetryWaiting, DiscardWaiting:
		return true
	}
	return false
}
