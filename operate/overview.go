package operate

import (
	"cmp"
	"context"
	_ "embed"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/rocketflow/rocketflow/internal/clock"
)

//go:embed overview.sql
var overviewSQL string

const (
	// MaxOverviewCount is where a count in an Overview ends: it means that many or more.
	MaxOverviewCount = 10_000
	// MaxParkedStreams is where the counts of streams in an Overview end.
	MaxParkedStreams = 1000

	recentEvents   = 200 // that critical times and paths are taken from
	finishedWindow = time.Hour
)

// Overview is what a schema's tables say about its service as a whole, at one moment. It is read every second, so each of its counts ends
// at MaxOverviewCount, but for those of streams; a Backlog counts further.
type Overview struct {
	Service  string         `json:"service"`  // empty: none has claimed the schema
	Now      time.Time      `json:"now"`      // by the database's clock
	Owed     []OwedCount    `json:"owed"`     // by topic; the MaxOverviewCount oldest of all are counted
	Rejected int64          `json:"rejected"` // owed events that the broker rejects
	Timeouts TimeoutCount   `json:"timeouts"`
	Waiting  []WaitingCount `json:"waiting_for_sagas"` // by saga and status; the MaxOverviewCount that came first are counted
	// Paths says how the newest 200 confirmed events reached the broker, by the name of the path, such as "half message" or "relay".
	Paths []PathCount `json:"paths"`
	// ParkedStreams counts the streams that are parked, up to MaxParkedStreams, and ParkedDead those of them that a dead letter holds.
	ParkedStreams int64 `json:"parked_streams"`
	ParkedDead    int64 `json:"parked_streams_dead"`
	// Sagas counts running sagas by state, and SagasFinished those that finished in the last hour by their last state.
	Sagas         []SagaCount      `json:"sagas"`
	SagasFinished []SagaCount      `json:"sagas_finished"`
	Consumers     []ConsumerReport `json:"consumers"`
}

// PathCount counts events by the path that they took to the broker.
type PathCount struct {
	Path   string `json:"path"`
	Events int64  `json:"events"`
}

// SagaCount counts sagas in a state.
type SagaCount struct {
	Name    string `json:"name"`
	Version int    `json:"version,omitempty"` // 0: of all versions
	State   string `json:"state"`
	Sagas   int64  `json:"sagas"`
}

// ConsumerReport is what a schema records about a consumer.
type ConsumerReport struct {
	Name              string        `json:"name"`
	Group             string        `json:"group,omitempty"` // empty: an older version registered the consumer
	BornAt            time.Time     `json:"born_at"`         // its first start
	InboxRetention    time.Duration `json:"inbox_retention"`
	PositionRetention time.Duration `json:"position_retention"`
	Topics            []string      `json:"topics"`
	Handlers          []HandledType `json:"handlers"`
	Parked            int64         `json:"parked"` // events that wait; without dead letters
	Dead              int64         `json:"dead"`   // dead letters
	// Recent is how many of the newest events it has handled, of which CriticalTime is the 99th percentile of the time from the publication
	// to the end of the handling. Of ordered events only those of this schema's outbox are known. 0: none is known.
	Recent       int           `json:"recent"`
	CriticalTime time.Duration `json:"critical_time"`
}

// HandledType is a type of events that a consumer has a handler of.
type HandledType struct {
	Topic string `json:"topic"`
	Type  string `json:"type"`
}

// pathNames names the values of the column path of outbox_ack.
var pathNames = map[int16]string{0: "not recorded", 1: "half message", 2: "relay", 3: "sweep", 4: "check-back"}

// Overview reports on a service as a whole. It is made to be read every second.
func (o *Operator) Overview(ctx context.Context) (*Overview, error) {
	var v Overview
	if err := o.read(ctx, func(s snapshot) error { return s.overview(ctx, &v) }); err != nil {
		return nil, fmt.Errorf("read the overview of schema %s: %w", o.config.Schema, err)
	}
	return &v, nil
}

func (s snapshot) overview(ctx context.Context, v *Overview) (err error) {
	if err := s.tx.QueryRow(ctx, s.sql.Get("ServiceName")).Scan(&v.Service, &v.Now); err != nil {
		return err
	}
	var b Backlog
	if err := s.openWork(ctx, &b, MaxOverviewCount); err != nil {
		return err
	}
	v.Owed, v.Timeouts, v.Waiting = b.Owed, b.Timeouts, b.Waiting
	if err := s.tx.QueryRow(ctx, s.sql.Get("RejectedCount"), MaxOverviewCount).Scan(&v.Rejected); err != nil {
		return fmt.Errorf("count rejected events: %w", err)
	}
	v.Paths, err = collect(ctx, s, "AckPaths", func(row pgx.CollectableRow, c *PathCount) error {
		var path int16
		err := row.Scan(&path, &c.Events)
		c.Path = cmp.Or(pathNames[path], pathNames[0])
		return err
	}, recentEvents)
	if err != nil {
		return fmt.Errorf("paths: %w", err)
	}
	if err := s.tx.QueryRow(ctx, s.sql.Get("ParkedStreamCount"), MaxParkedStreams).Scan(&v.ParkedStreams, &v.ParkedDead); err != nil {
		return fmt.Errorf("count parked streams: %w", err)
	}
	v.Sagas, err = collect(ctx, s, "SagaStates", func(row pgx.CollectableRow, c *SagaCount) error {
		return row.Scan(&c.Name, &c.Version, &c.State, &c.Sagas)
	}, maxRows, MaxOverviewCount)
	if err != nil {
		return fmt.Errorf("count sagas: %w", err)
	}
	v.SagasFinished, err = collect(ctx, s, "SagasFinished", func(row pgx.CollectableRow, c *SagaCount) error {
		return row.Scan(&c.Name, &c.State, &c.Sagas)
	}, finishedWindow.Seconds(), MaxOverviewCount)
	if err != nil {
		return fmt.Errorf("count finished sagas: %w", err)
	}
	v.Consumers, err = s.consumers(ctx, v.Now)
	return err
}

// consumers reads the consumers with the critical times of the newest events.
func (s snapshot) consumers(ctx context.Context, now time.Time) ([]ConsumerReport, error) {
	list, err := collect(ctx, s, "Consumers", func(row pgx.CollectableRow, c *ConsumerReport) error {
		var inbox, position float64
		var topics, types []string
		err := row.Scan(&c.Name, &c.Group, &c.BornAt, &inbox, &position, &c.Topics, &topics, &types, &c.Parked, &c.Dead)
		c.InboxRetention, c.PositionRetention = time.Duration(inbox*float64(time.Second)), time.Duration(position*float64(time.Second))
		for i := range topics {
			c.Handlers = append(c.Handlers, HandledType{topics[i], types[i]})
		}
		return err
	}, maxRows, MaxOverviewCount)
	if err != nil {
		return nil, fmt.Errorf("list consumers: %w", err)
	}
	type handling struct {
		consumer string
		took     time.Duration
	}
	// Ids of others, which tell no time, would come first.
	loose, err := collect(ctx, s, "RecentlyHandled", func(row pgx.CollectableRow, h *handling) error {
		var id uuid.UUID
		var at time.Time
		err := row.Scan(&h.consumer, &id, &at)
		if id.Version() == 7 {
			h.took = max(at.Sub(clock.TimeOf(id)), 0)
		} else {
			h.consumer = ""
		}
		return err
	}, recentEvents, idAt(now.Add(24*time.Hour)).String())
	if err != nil {
		return nil, fmt.Errorf("critical times: %w", err)
	}
	ordered, err := collect(ctx, s, "RecentlyHandledInOrder", func(row pgx.CollectableRow, h *handling) error {
		var recorded, at time.Time
		err := row.Scan(&h.consumer, &recorded, &at)
		h.took = max(at.Sub(recorded), 0)
		return err
	}, recentEvents)
	if err != nil {
		return nil, fmt.Errorf("critical times of streams: %w", err)
	}
	times := map[string][]time.Duration{}
	for _, h := range append(loose, ordered...) {
		times[h.consumer] = append(times[h.consumer], h.took)
	}
	for i := range list {
		if took := times[list[i].Name]; len(took) > 0 {
			slices.Sort(took)
			list[i].Recent, list[i].CriticalTime = len(took), took[(len(took)*99-1)/100]
		}
	}
	return list, nil
}
