package doctor

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/internal/background"
	"github.com/rocketflow/rocketflow/internal/guard"
)

// parallel is the maximum number of checks that run at a time. Each uses one connection of a pool at most.
const parallel = 4

// Doctor examines databases and a RocketMQ. Its methods are safe for concurrent use.
type Doctor struct {
	config Config
	work   background.Group
	last   atomic.Pointer[Report]
}

// New returns a Doctor. It connects to nothing. An error is a *rocketflow.FieldError.
func New(c Config) (*Doctor, error) {
	c = c.withDefaults()
	if err := c.validate(); err != nil {
		return nil, err
	}
	return &Doctor{config: c}, nil
}

// Examine runs the checks. It always returns a report: what can't be looked at is in it as Unknown. If ctx ends, the checks that
// are left give Unknown.
func (d *Doctor) Examine(ctx context.Context) *Report {
	ctx, cancel := context.WithTimeout(ctx, d.config.Timeout)
	defer cancel()
	began := time.Now()
	x := d.open(ctx)
	defer x.close()

	tasks := x.tasks()
	results := make([][]Result, len(tasks))
	slots := make(chan struct{}, parallel)
	var running sync.WaitGroup
	for i, task := range tasks {
		slots <- struct{}{}
		running.Go(func() {
			defer func() { <-slots }()
			results[i] = task.run(ctx, x)
		})
	}
	running.Wait()

	report := &Report{ExaminedAt: began, Results: []Result{}}
	for _, list := range results {
		report.Results = append(report.Results, list...)
	}
	report.Took = time.Since(began)
	return report
}

// examination is one run of all checks, with what is read once for several of them.
type examination struct {
	config    Config
	databases []*database
	cluster   *cluster // nil: no broker is configured
}

// open reads what several checks need: which schemas a database has, which brokers a RocketMQ has, and how they are configured.
func (d *Doctor) open(ctx context.Context) *examination {
	x := &examination{config: d.config, databases: make([]*database, len(d.config.Databases))}
	var opening sync.WaitGroup
	for i, c := range d.config.Databases {
		opening.Go(func() { x.databases[i] = openDatabase(ctx, x, c) })
	}
	if d.config.Broker != nil {
		opening.Go(func() { x.cluster = openCluster(ctx, x, *d.config.Broker) })
	}
	opening.Wait()
	return x
}

func (x *examination) close() {
	if x.cluster != nil {
		x.cluster.close()
	}
}

// schemas returns the schemas of all databases.
func (x *examination) schemas() []*schema {
	var list []*schema
	for _, d := range x.databases {
		list = append(list, d.schemas...)
	}
	return list
}

// task is one check of one target. blocked, if not empty, is why it can't look, and mend what mends that.
type task struct {
	check
	subject string
	blocked string
	look    func(context.Context) []Result
	mend    string
}

// tasks returns the tasks of the selected checks, in the order of the report.
func (x *examination) tasks() []task {
	var list []task
	for _, k := range all {
		if x.config.runs(k) {
			list = append(list, x.tasksOf(k)...)
		}
	}
	return list
}

func (x *examination) tasksOf(k check) (list []task) {
	switch {
	case k.host != nil:
		return []task{{k, "host", "", func(ctx context.Context) []Result { return k.host(ctx, x) }, ""}}
	case k.cluster != nil:
		if x.cluster == nil {
			return []task{{k, "broker", "no name server is named", nil, ""}}
		}
		if x.cluster.err != nil {
			return []task{{k, x.cluster.name, "", func(context.Context) []Result { return one(unknown("%s", reason(x.cluster.err))) }, ""}}
		}
		return []task{{k, x.cluster.name, "", func(ctx context.Context) []Result { return k.cluster(ctx, x.cluster) }, ""}}
	case len(x.databases) == 0:
		return []task{{k, "database", "no database is named", nil, ""}}
	}
	for _, d := range x.databases {
		switch {
		case k.database != nil:
			list = append(list, task{k, d.name, d.blocked(), func(ctx context.Context) []Result { return k.database(ctx, d) }, ""})
		case d.blocked() != "":
			list = append(list, task{k, d.name, d.blocked(), nil, ""})
		case len(d.schemas) == 0:
			list = append(list, task{k, d.name, "the database has no schema with rocketflow's tables, or none that the role may see", nil, ""})
		}
		if k.schema == nil || d.blocked() != "" {
			continue
		}
		for _, s := range d.schemas {
			blocked, mend := "", ""
			if !k.catalog && s.err != nil {
				blocked, mend = s.blocked(), s.cannot(s.err).Mend
			}
			list = append(list, task{k, s.subject(), blocked, func(ctx context.Context) []Result { return k.schema(ctx, s) }, mend})
		}
	}
	return list
}

// run runs the check. It returns at least one result.
func (t task) run(ctx context.Context, x *examination) []Result {
	results := t.answer(ctx, x.config.CheckTimeout)
	if len(results) == 0 {
		results = one(unknown("the check gave no answer"))
	}
	for i := range results {
		switch c := results[i].cause; {
		case c == nil, results[i].Mend != "":
		case x.cluster != nil && x.cluster.Unlisted != nil && errors.Is(c, x.cluster.Unlisted):
			results[i].Mend = x.cluster.elsewhere(t.Check)
		case errors.Is(c, broker.ErrUnauthorized):
			results[i].Mend = x.cluster.grant()
		}
		results[i] = results[i].complete(t.Check, t.subject)
	}
	return results
}

func (t task) answer(ctx context.Context, timeout time.Duration) (results []Result) {
	switch {
	case t.blocked != "":
		r := unknown("%s", t.blocked)
		r.Mend = t.mend
		return one(r)
	case ctx.Err() != nil:
		return one(unknown("the examination's time is over"))
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	if err := guard.Call(func() { results = t.look(ctx) }); err != nil {
		return one(unknown("the check failed: %v", err))
	}
	return results
}
