package main

import (
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"github.com/rocketflow/rocketflow/operate"
)

// eventFlags are the flags by which commands select events: those of names, --limit, and --all where something is changed.
type eventFlags struct {
	consumer, source, topic, eventType, subject, event string
	since, until                                       string
	all                                                bool
	limit                                              int

	names          []string
	eventID        uuid.UUID // of --event
	sinceAt, endAt time.Time // of --since and --until
}

// eventFlagUsage is the help of each flag that selects events.
var eventFlagUsage = map[string]string{
	"consumer": "only events of this consumer",
	"source":   "only events that this service published",
	"topic":    "only events of this topic",
	"type":     "only events of this type",
	"subject":  "only events of this subject",
	"event":    "only the event with this id",
	"since":    "only events recorded at this time or later",
	"until":    "only events recorded before this time",
}

// add adds flags by name.
func (f *eventFlags) add(cmd *cobra.Command, names ...string) {
	values := map[string]*string{
		"consumer": &f.consumer, "source": &f.source, "topic": &f.topic, "type": &f.eventType, "subject": &f.subject, "event": &f.event,
		"since": &f.since, "until": &f.until,
	}
	f.names = names
	for _, name := range names {
		cmd.Flags().StringVar(values[name], name, "", eventFlagUsage[name])
	}
}

// addList adds flags by name, and --limit for a list.
func (f *eventFlags) addList(cmd *cobra.Command, names ...string) {
	f.add(cmd, names...)
	limitFlag(cmd, &f.limit, 100, "at most this many")
}

// addChange adds flags by name, and --all and --limit for a command that changes something. what completes the help of --all.
func (f *eventFlags) addChange(cmd *cobra.Command, what string, names ...string) {
	f.add(cmd, names...)
	cmd.Flags().BoolVar(&f.all, "all", false, what)
	limitFlag(cmd, &f.limit, 0, "at most this many, the oldest first (default no limit)")
}

// check reads the values of the flags. A flag that is set to nothing, most likely from a variable that is empty, would
// select everything: it is refused.
func (f *eventFlags) check(cmd *cobra.Command, now time.Time) (selective bool, err error) {
	for _, name := range f.names {
		if flag := cmd.Flags().Lookup(name); flag.Changed {
			selective = true
			if flag.Value.String() == "" {
				return false, usagef("--%s is empty: give it a value, or leave it out", name)
			}
		}
	}
	if f.event != "" {
		if f.eventID, err = uuid.Parse(f.event); err != nil || f.eventID == uuid.Nil {
			return false, usagef("--event %q is not the id of an event: want a UUID", f.event)
		}
	}
	if f.sinceAt, err = timeOf("since", f.since, now); err != nil {
		return false, err
	}
	if f.endAt, err = timeOf("until", f.until, now); err != nil {
		return false, err
	}
	if !f.endAt.IsZero() && !f.sinceAt.Before(f.endAt) {
		return false, usagef("--since is not before --until")
	}
	if f.limit < 0 || f.limit == 0 && cmd.Flags().Changed("limit") {
		return false, usagef("--limit %d: want at least 1", f.limit)
	}
	return selective, nil
}

// checkChange is check for a command that changes something: it requires a filter or --all.
func (f *eventFlags) checkChange(cmd *cobra.Command, now time.Time) error {
	selective, err := f.check(cmd, now)
	switch {
	case err != nil:
		return err
	case selective && f.all:
		return usagef("--all and a filter exclude each other: leave one out")
	case !selective && !f.all:
		return usagef("no events are selected: set a filter, or --all")
	}
	return nil
}

func (f *eventFlags) parked() operate.ParkedFilter {
	return operate.ParkedFilter{
		Consumer: f.consumer, EventID: f.eventID, Source: f.source, Topic: f.topic, Type: f.eventType, Subject: f.subject,
		All: f.all, Limit: f.limit,
	}
}

func (f *eventFlags) rejected() operate.RejectedFilter {
	return operate.RejectedFilter{
		EventID: f.eventID, Source: f.source, Topic: f.topic, Type: f.eventType, Subject: f.subject, All: f.all, Limit: f.limit,
	}
}

func (f *eventFlags) resend() operate.ResendFilter {
	r := operate.ResendFilter{
		Source: f.source, Topic: f.topic, Type: f.eventType, Subject: f.subject, Since: f.sinceAt, Until: f.endAt,
		All: f.all, Limit: f.limit,
	}
	if f.eventID != uuid.Nil {
		r.IDs = []uuid.UUID{f.eventID}
	}
	return r
}

// timeOf reads an instant, or how long ago it was; the zero time for no text.
func timeOf(flag, text string, now time.Time) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	if ago, err := time.ParseDuration(text); err == nil && ago >= 0 {
		return now.Add(-ago), nil
	}
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return at, usagef("--%s %q is not a time: want an instant, such as 2026-01-31T08:00:00Z, or how long ago, such as 90m", flag, text)
	}
	return at, nil
}

// parseEventID reads the id of an event that is an argument.
func parseEventID(text string) (uuid.UUID, error) {
	id, err := uuid.Parse(text)
	if err != nil {
		return id, usagef("%.80q is not the id of an event: want a UUID", text)
	}
	return id, nil
}
