//go:build !race

package orderclose_test

import (
	"cmp"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"

	"github.com/rocketflow/rocketflow/examples/orderclose"
	"github.com/rocketflow/rocketflow/rocketflowtest"
	"github.com/rocketflow/rocketflow/rocketmqtest"
)

// schedule is what is derived from a seed: the orders, what their customers do, what fails, and when.
type schedule struct {
	seed   uint64
	sku    string
	orders []purchase
	steps  []step
	faults *rocketmqtest.Faults
}

type purchase struct {
	id       uuid.UUID
	at       time.Duration
	quantity int64
	within   time.Duration
	manner   string
}

// step is done at a time after the schedule's beginning by the test's clock, or, where it is about an order's deadline,
// at a time from that.
type step struct {
	at       time.Duration
	deadline bool
	order    int
	settle   bool // wait a moment for running work to settle before it
	what     string
	do       func(*execution) error
}

var namespace = uuid.MustParse("5a4d8a3e-3e0c-4ea0-9b36-6f1c9d0f7b11")

// draw returns the schedule of a seed, the same each time.
func draw(seed uint64) *schedule {
	random := rand.New(rand.NewPCG(seed, 1))
	s := &schedule{seed: seed, sku: fmt.Sprint("article-", seed)}
	for i := range 1 + random.IntN(3) {
		s.drawOrder(random, i)
	}
	s.drawOutages(random)
	s.drawFaults(random)
	slices.SortStableFunc(s.steps, func(a, b step) int { return cmp.Compare(s.nominal(a), s.nominal(b)) })
	return s
}

// nominal is when a step would be done if placing took no time.
func (s *schedule) nominal(p step) time.Duration {
	if p.deadline {
		return s.orders[p.order].at + s.orders[p.order].within + p.at
	}
	return p.at
}

func (s *schedule) add(random *rand.Rand, p step) {
	p.settle = random.IntN(2) == 0
	s.steps = append(s.steps, p)
}

func (s *schedule) drawOrder(random *rand.Rand, i int) {
	p := purchase{
		id:       uuid.NewSHA1(namespace, fmt.Appendf(nil, "%d/%d", s.seed, i)),
		at:       between(random, 0, 5*time.Second),
		quantity: 1 + random.Int64N(5),
		within:   []time.Duration{2 * time.Second, 10 * time.Second, time.Minute, 30 * time.Minute}[random.IntN(4)],
	}
	s.add(random, step{at: p.at, order: i, what: fmt.Sprintf("order %d is placed", i+1), do: func(e *execution) error { return e.place(i) }})

	acts := func(at time.Duration, deadline bool, all ...act) {
		s.add(random, step{at: at, deadline: deadline, order: i, what: fmt.Sprintf("order %d %v", i+1, all), do: func(e *execution) error { return e.act(i, all...) }})
	}
	inTime := p.at + between(random, 1, p.within)
	near := between(random, -30*time.Millisecond, 30*time.Millisecond)
	late := between(random, time.Second, 10*time.Minute)
	switch random.IntN(12) {
	case 0, 1:
		p.manner = "pays in time"
		acts(inTime, false, pays)
	case 2, 3:
		p.manner = "pays at the deadline"
		acts(near, true, pays)
	case 4:
		p.manner = "pays late"
		acts(late, true, pays)
	case 5:
		p.manner = "is declined"
		acts(inTime, false, declines)
	case 6:
		p.manner = "cancels"
		acts(inTime, false, cancels)
	case 7:
		p.manner = "pays and cancels at once"
		acts(inTime, false, pays, cancels)
	case 8:
		p.manner = "cancels and pays at the deadline"
		acts(near, true, cancels, pays, cancels)
	case 9:
		p.manner = "is declined, pays and is declined at once"
		acts(inTime, false, declines, pays, declines)
	case 10:
		p.manner = "cancels, then pays"
		acts(inTime, false, cancels)
		acts(inTime+near.Abs(), false, pays)
	default:
		p.manner = "never pays"
	}
	s.orders = append(s.orders, p)
}

// drawOutages adds outages of the broker or of a service to some schedules.
func (s *schedule) drawOutages(random *rand.Rand) {
	trouble := func(what string, do func(*execution) error) {
		at := step{at: between(random, 0, 15*time.Second), what: what, do: do}
		if random.IntN(3) == 0 { // when it matters more
			at.order, at.deadline, at.at = random.IntN(len(s.orders)), true, between(random, -100*time.Millisecond, 100*time.Millisecond)
		}
		s.add(random, at)
	}
	which := []string{"order", "payment"}[random.IntN(2)]
	pause := between(random, 0, 40*time.Second)
	switch n := random.IntN(100); {
	case n < 6:
		loss := []rocketmqtest.Loss{rocketmqtest.LoseNothing, rocketmqtest.LoseMarkers, rocketmqtest.LoseMemory, rocketmqtest.LoseMemory}[random.IntN(4)]
		trouble(fmt.Sprintf("the broker restarts (loss %d)", loss), func(e *execution) error {
			e.shop.RestartBroker(loss)
			return nil
		})
	case n < 10:
		trouble(fmt.Sprintf("service %s is stopped for %v", which, pause), func(e *execution) error {
			service := map[string]*rocketflowtest.Service{"order": e.shop.order, "payment": e.shop.payment}[which]
			service.Stop()
			e.shop.Advance(pause)
			service.Start()
			return nil
		})
	case n < 14:
		outage := []rocketmqtest.Outage{rocketmqtest.Silent, rocketmqtest.Dead, rocketmqtest.Refused}[random.IntN(3)]
		trouble(fmt.Sprintf("service %s is cut off (outage %d) to the end", which, outage), func(e *execution) error {
			e.heals = append(e.heals, e.shop.cut(which, outage))
			return nil
		})
	case n < 17:
		trouble("the broker pauses to the end", func(e *execution) error {
			e.shop.Broker().Pause()
			e.heals = append(e.heals, e.shop.Broker().Resume)
			return nil
		})
	}
}

// drawFaults sets the rates of the faults of single requests.
func (s *schedule) drawFaults(random *rand.Rand) {
	f := &rocketmqtest.Faults{Seed: s.seed, MaxDelay: 30 * time.Millisecond, MessageName: nameOf}
	kinds := []*float64{&f.Drop, &f.DropResponse, &f.Duplicate, &f.Delay, &f.Reorder, &f.ResetBefore, &f.ResetAfter}
	for range random.IntN(4) {
		*kinds[random.IntN(len(kinds))] = 0.05 + 0.25*random.Float64()
	}
	s.faults = f
}

// nameOf returns a name of a message that is the same in each run, unlike the ids of events.
func nameOf(r rocketmqtest.Request) string {
	return r.Properties["TAGS"] + "/" + r.Properties["SHARDING_KEY"]
}

func between(random *rand.Rand, from, to time.Duration) time.Duration {
	return from + time.Duration(random.Int64N(int64(to-from)))
}

func (s *schedule) String() string {
	var b strings.Builder
	for i, p := range s.orders {
		fmt.Fprintf(&b, "  order %d is %v, %d of %s within %v, who %s\n", i+1, p.id, p.quantity, s.sku, p.within, p.manner)
	}
	for _, p := range s.steps {
		when, settled := fmt.Sprintf("at %v", p.at), ""
		if p.deadline {
			when = fmt.Sprintf("at deadline %d %+v", p.order+1, p.at)
		}
		if p.settle {
			settled = ", settled"
		}
		fmt.Fprintf(&b, "  %s%s: %s\n", when, settled, p.what)
	}
	f := s.faults
	fmt.Fprintf(&b, "  drop %.2f, drop response %.2f, duplicate %.2f, delay %.2f, reorder %.2f, cut before %.2f, cut after %.2f: %v",
		f.Drop, f.DropResponse, f.Duplicate, f.Delay, f.Reorder, f.ResetBefore, f.ResetAfter, f)
	return b.String()
}

// story returns what the broker holds of the schedule's orders, and what is outstanding.
func (s *schedule) story(dump rocketmqtest.Dump) string {
	var b strings.Builder
	for line := range strings.Lines(dump.String()) {
		about := !strings.Contains(line, "id=") || strings.Contains(line, " queue ") // a message, else the broker itself
		for _, p := range s.orders {
			about = about || strings.Contains(line, p.id.String())
		}
		if about {
			b.WriteString("  " + line)
		}
	}
	return b.String()
}

// execution is the state of a run of a schedule.
type execution struct {
	*schedule
	shop      *shop
	began     time.Time
	deadlines []time.Time    // of orders; zero: not placed
	repeats   []func() error // acts that were too early, to be done at the end
	heals     []func()
}

// play runs the schedule to its end, and returns which promises are broken.
func (s *schedule) play(shop *shop) (broken []string, summary orderclose.Summary) {
	shop.stock(s.sku)
	e := &execution{schedule: s, shop: shop, began: shop.Now(), deadlines: make([]time.Time, len(s.orders))}
	e.heals = append(e.heals, shop.Broker().Control(s.faults.Hook))
	for _, err := range []error{e.run(), e.end()} {
		if err != nil {
			broken = append(broken, err.Error())
		}
	}
	var ids []uuid.UUID
	for _, p := range s.orders {
		ids = append(ids, p.id)
	}
	found, summary := shop.check(ids, s.sku)
	return append(broken, found...), summary
}

func (e *execution) run() error {
	for _, p := range e.steps {
		if p.settle {
			e.shop.TrySettle(60 * time.Millisecond)
		}
		from := e.began
		if p.deadline && !e.deadlines[p.order].IsZero() {
			from = e.deadlines[p.order]
		}
		e.shop.wait(from.Add(p.at))
		if err := p.do(e); err != nil {
			return err
		}
	}
	return nil
}

// end ends all faults, and moves the clock until all orders are final.
func (e *execution) end() error {
	for _, heal := range slices.Backward(e.heals) {
		heal()
	}
	if err := e.shop.settle(); err != nil {
		return err
	}
	for _, act := range e.repeats {
		if err := act(); err != nil {
			return err
		}
	}
	e.shop.wait(latest(e.deadlines))
	return e.shop.settle()
}

func (e *execution) place(i int) error {
	ctx, cancel := e.shop.bounded()
	defer cancel()
	p := e.orders[i]
	o, err := e.shop.place(ctx, p.id, e.sku, p.quantity, p.within)
	e.deadlines[i] = o.PayBy.Time
	return err
}

// act sends requests at the same time. Those that are too early are repeated at the end.
func (e *execution) act(i int, all ...act) error {
	var group errgroup.Group
	errs := make([]error, len(all))
	for n, a := range all {
		group.Go(func() error {
			errs[n] = a.do(e.shop, e.orders[i].id)
			return nil
		})
	}
	_ = group.Wait() // no errors
	for n, a := range all {
		if errors.Is(errs[n], errTooEarly) {
			e.repeats = append(e.repeats, func() error { return a.do(e.shop, e.orders[i].id) })
			errs[n] = nil
		}
	}
	return errors.Join(errs...)
}
