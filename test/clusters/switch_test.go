package clusters

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/rocketflow/rocketflow/internal/devstack"
	"github.com/rocketflow/rocketflow/test/poll"
)

// maxBeyond is how much longer than the brokers handlers may stand still.
const maxBeyond = 5 * time.Second

// TestSwitchOfMasters kills the master under load, again and again: the controller makes the slave the master, and the service follows by
// itself. Topics survive, whatever the version's slaves can copy.
func TestSwitchOfMasters(t *testing.T) {
	for _, transport := range transports() {
		t.Run(transport.String(), func(t *testing.T) {
			cluster := start(t, devstack.ClusterConfig{Brokers: []string{"broker-a", "broker-a"}, Controller: true})
			inSync(t, cluster)
			s := load(t, cluster.NameServerAddresses(), transport)
			s.flowing(time.Now(), time.Minute)
			var brokers, sends, handlers []time.Duration
			for n := range kills(t) {
				inSync(t, cluster)
				master, err := cluster.Master(bounded(t, 10*time.Second), "broker-a")
				if err != nil {
					t.Fatal(err)
				}
				end, seen := make(chan struct{}), make(chan outage, 1)
				go func() { seen <- s.watch(end) }()
				killed := time.Now()
				master.Kill()
				var without time.Duration
				poll.Within(t, 2*time.Minute, "another master is listed", func() bool {
					now, err := cluster.Master(context.Background(), "broker-a")
					without = time.Since(killed)
					return err == nil && now != master
				})
				s.flowing(time.Now(), 2*time.Minute)
				close(end)
				o := <-seen
				brokers, sends, handlers = append(brokers, without), append(sends, o.sends), append(handlers, o.handlers)
				t.Logf("kill %d: no master for %v; no send for %v; no handler for %v", n+1, without, o.sends, o.handlers)
				if o.handlers > without+maxBeyond {
					t.Errorf("kill %d: handlers stood still for %v, the brokers for %v", n+1, o.handlers, without)
				}
				if err := master.Start(); err != nil {
					t.Fatal(err)
				}
			}
			t.Logf("| %s | %v | %d kills | brokers %s | sends %s | handlers %s |", version(), transport, len(brokers), spread(brokers), spread(sends), spread(handlers))
			s.settle()
		})
	}
}

// inSync waits until both brokers run and the controller would choose either.
func inSync(t *testing.T, cluster *devstack.Cluster) {
	t.Helper()
	ctx := bounded(t, 3*time.Minute)
	if err := cluster.AwaitBrokers(ctx); err != nil {
		t.Fatal(err)
	}
	poll.Succeeds(t, 3*time.Minute, func() error {
		n, err := cluster.InSync(ctx, "broker-a")
		if err == nil && n < 2 {
			err = fmt.Errorf("%d brokers are in sync", n)
		}
		return err
	})
}

// spread is the median and the longest of durations.
func spread(all []time.Duration) string {
	if len(all) == 0 {
		return "none"
	}
	slices.Sort(all)
	return fmt.Sprintf("p50 %.1f s, longest %.1f s", all[len(all)/2].Seconds(), all[len(all)-1].Seconds())
}
