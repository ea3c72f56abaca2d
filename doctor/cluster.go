package doctor

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/internal/remoting"
)

// cluster is a RocketMQ with what was read of it at the beginning.
type cluster struct {
	Broker
	x       *examination
	name    string
	servers []*nameServer
	err     error     // why no broker is known
	brokers []*master // by name
}

// nameServer is a name server with its list of brokers.
type nameServer struct {
	address string
	conn    *remoting.Conn
	err     error
	cluster remoting.Cluster
}

// master is a broker, which is asked at its master.
type master struct {
	name, address string
	slaves        int
	conn          *remoting.Conn
	err           error // why it can't be asked
	version       int   // ordinal, as the protocol has it

	settings    map[string]string
	settingsErr error // why its settings can't be read
	state       map[string]string
	stateErr    error // why its state can't be read

	lag      time.Duration // of the host's clock behind that of the broker
	accuracy time.Duration // of lag; 0: not known
}

func openCluster(ctx context.Context, x *examination, c Broker) *cluster {
	m := &cluster{Broker: c, x: x, name: "RocketMQ " + strings.Join(c.NameServers, ";")}
	ctx, cancel := context.WithTimeout(ctx, x.config.CheckTimeout)
	defer cancel()
	var opening sync.WaitGroup
	for _, address := range c.NameServers {
		s := &nameServer{address: address}
		m.servers = append(m.servers, s)
		opening.Go(func() { s.err = s.open(ctx, c) })
	}
	opening.Wait()
	known := map[string]*master{}
	var errs []error
	for _, s := range m.servers {
		if s.err != nil {
			errs = append(errs, s.err)
		}
		for name, b := range s.cluster.Brokers {
			if known[name] == nil {
				known[name] = &master{name: name}
			}
			if address := b.Master(); address != "" {
				known[name].address, known[name].slaves = address, len(b.Addresses)-1
			}
		}
	}
	switch {
	case len(known) == 0 && len(errs) == len(m.servers), c.Unlisted == nil && len(known) == 0 && len(errs) > 0:
		m.err = errors.Join(errs...)
	case c.Unlisted != nil:
		m.err = c.Unlisted
	case len(known) == 0:
		m.err = errors.New("the name servers list no broker")
	}
	for _, name := range slices.Sorted(maps.Keys(known)) {
		b := known[name]
		m.brokers = append(m.brokers, b)
		opening.Go(func() { b.err = b.open(ctx, c) })
	}
	opening.Wait()
	return m
}

func (s *nameServer) open(ctx context.Context, c Broker) (err error) {
	// Name servers have no users, so they need not see requests signed with the brokers' credentials. Proxies have.
	lists, keys := c.Unlisted == nil, remoting.Credentials{}
	if !lists {
		keys = c.keys()
	}
	if s.conn, err = remoting.DialTLS(ctx, s.address, c.TLS, keys, nil); err != nil {
		return fmt.Errorf("name server: %w", err)
	}
	if !lists {
		return nil
	}
	response, err := s.conn.Call(ctx, &remoting.Command{Code: remoting.ClusterInfo})
	switch {
	case refusedWith(err, remoting.NotSupported), refusedWith(err, remoting.VersionNotSupported):
		return fmt.Errorf("%s lists no brokers, as a proxy or a cloud: say which one with ROCKETMQ_PROFILE: %w", s.address, err)
	case err != nil:
		return fmt.Errorf("name server %s: %w", s.address, s.conn.Explain(ctx, err))
	}
	s.cluster, err = remoting.DecodeCluster(response.Body)
	return err
}

func (b *master) open(ctx context.Context, c Broker) (err error) {
	if b.address == "" {
		return fmt.Errorf("%w: broker %s has no master", broker.ErrUnavailable, b.name)
	}
	if b.conn, err = remoting.DialTLS(ctx, b.address, c.TLS, c.keys(), nil); err != nil {
		return fmt.Errorf("broker %s: %w", b.name, err)
	}
	response, err := b.conn.Call(ctx, &remoting.Command{Code: remoting.BrokerConfig})
	if response == nil {
		return fmt.Errorf("broker %s: %w", b.name, b.conn.Explain(ctx, err))
	}
	b.version = response.Version
	b.settings, b.settingsErr = properties(response.Body), err
	b.stateErr = b.readState(ctx)
	return nil
}

// readState reads the broker's state twice: the second time for the clock, because the broker has loaded the code then.
func (b *master) readState(ctx context.Context) error {
	for range 2 {
		asked := time.Now()
		response, err := b.conn.Call(ctx, &remoting.Command{Code: remoting.BrokerRuntime})
		if err != nil {
			return err
		}
		trip := time.Since(asked)
		var body struct {
			Table map[string]string `json:"table"`
		}
		if err := remoting.DecodeJSON(response.Body, &body); err != nil {
			return err
		}
		b.state = body.Table
		if now, ok := brokerTime(b.state); ok {
			// The broker gives its time in whole seconds, rounded down.
			b.lag, b.accuracy = now.Add(time.Second/2).Sub(asked.Add(trip/2)), time.Second/2+trip/2
		}
	}
	return nil
}

func (m *cluster) close() {
	for _, s := range m.servers {
		if s.conn != nil {
			s.conn.Close()
		}
	}
	for _, b := range m.brokers {
		if b.conn != nil {
			b.conn.Close()
		}
	}
}

// keys returns the credentials.
func (b Broker) keys() remoting.Credentials {
	return remoting.Credentials{AccessKey: b.AccessKey, SecretKey: b.SecretKey}
}

// unlisted reports whether the cluster answers and can't be asked for its brokers.
func (m *cluster) unlisted() bool { return m.Unlisted != nil && errors.Is(m.err, m.Unlisted) }

// elsewhere returns how an operator answers a check of brokers that the doctor can't ask. It is the same for all checks of a group, so that
// it is printed once.
func (m *cluster) elsewhere(c Check) string {
	return fmt.Sprintf("# where the name servers themselves can be reached:\nROCKETMQ_PROFILE=apache5 rocketflow doctor --only %s --namesrv <name servers>\n"+
		"# elsewhere with the tools of who runs the brokers: docs/doctor.md has what each check looks at", c.Group)
}

// grant returns the command that gives the user the rights that the doctor needs.
func (m *cluster) grant() string {
	return fmt.Sprintf("mqadmin createAcl -n %s -c %s -s %s -r 'Topic:*,Group:*,Cluster:*' -a Sub,Get -d Allow", m.namesrv(), shell(m.clusterName()), shell("User:"+cmp.Or(m.AccessKey, "USER")))
}

// wire returns the name of a topic or group with the namespace.
func (m *cluster) wire(name string) string {
	if m.Namespace == "" {
		return name
	}
	return m.Namespace + "%" + name
}

// route returns the queues of a topic, as the first name server that answers has them. The error matches broker.ErrTopicNotFound
// if the topic doesn't exist.
func (m *cluster) route(ctx context.Context, topic string) (route remoting.Route, err error) {
	err = errors.New("no name server answers")
	for _, s := range m.servers {
		if s.err != nil {
			continue
		}
		var response *remoting.Command
		response, err = s.conn.Call(ctx, &remoting.Command{Code: remoting.RouteOfTopic, Ext: map[string]string{"topic": topic}})
		switch {
		case err == nil:
			return remoting.DecodeRoute(response.Body)
		case errors.Is(err, broker.ErrTopicNotFound):
			return route, err
		}
	}
	return route, err
}

// each calls look for each broker that can be asked, and returns its results. A broker that can't be asked gives Unknown.
func (m *cluster) each(look func(b *master) []Result) (results []Result) {
	for _, b := range m.brokers {
		if b.err != nil {
			results = append(results, unknown("%s", reason(b.err)).about(m.subject(b)))
			continue
		}
		for _, r := range look(b) {
			if r.Subject == "" {
				r.Subject = m.subject(b)
			}
			results = append(results, r)
		}
	}
	return results
}

// eachSettings is each for the brokers' settings.
func (m *cluster) eachSettings(look func(b *master, s *settings) []Result) []Result {
	return m.each(func(b *master) []Result {
		if b.settingsErr != nil {
			return one(unknown("the broker's settings can't be read: %s", reason(b.settingsErr)))
		}
		s := &settings{of: b.settings}
		results := look(b, s)
		if s.missing != "" {
			return one(unknown("the broker has no setting %s, or it can't be read", s.missing))
		}
		return results
	})
}

func (m *cluster) subject(b *master) string { return "broker " + b.name }

// call sends a request to a broker.
func (b *master) call(ctx context.Context, request remoting.Code, ext map[string]string) (*remoting.Command, error) {
	return b.conn.Call(ctx, &remoting.Command{Code: request, Ext: ext})
}

// decode sends a request to a broker and decodes the JSON of its response.
func (b *master) decode(ctx context.Context, v any, request remoting.Code, ext map[string]string) error {
	response, err := b.call(ctx, request, ext)
	if err != nil {
		return err
	}
	return remoting.DecodeJSON(response.Body, v)
}

// offset sends a request whose response has an offset.
func (b *master) offset(ctx context.Context, request remoting.Code, ext map[string]string) (int64, error) {
	response, err := b.call(ctx, request, ext)
	if err != nil {
		return 0, err
	}
	return strconv.ParseInt(response.Ext["offset"], 10, 64)
}

// change returns the command that changes a setting of the broker while it runs.
func (b *master) change(key, value string) string {
	return fmt.Sprintf("mqadmin updateBrokerConfig -b %s -k %s -v %s", shell(b.address), key, value)
}

// settings are the settings of a broker.
type settings struct {
	of      map[string]string
	missing string // the first that was read and isn't there or has another form
}

func (s *settings) number(key string) int64 {
	n, err := strconv.ParseInt(s.of[key], 10, 64)
	if err != nil && s.missing == "" {
		s.missing = key
	}
	return n
}

func (s *settings) duration(key string, unit time.Duration) time.Duration {
	return time.Duration(s.number(key)) * unit
}

func (s *settings) text(key string) string {
	v, ok := s.of[key]
	if !ok && s.missing == "" {
		s.missing = key
	}
	return v
}

// properties parses what a broker sends of its settings: a line key=value for each.
func properties(body []byte) map[string]string {
	found := map[string]string{}
	for line := range strings.Lines(string(body)) {
		if key, value, ok := strings.Cut(strings.TrimSpace(line), "="); ok {
			found[key] = value
		}
	}
	return found
}

var running = regexp.MustCompile(`^\[ (\d+) days, (\d+) hours, (\d+) minutes, (\d+) seconds \]$`)

// brokerTime returns a broker's time, rounded down to a second after its start: when it started, and how long it has run.
func brokerTime(state map[string]string) (time.Time, bool) {
	began, err := strconv.ParseInt(state["bootTimestamp"], 10, 64)
	parts := running.FindStringSubmatch(strings.TrimSpace(state["runtime"]))
	if err != nil || parts == nil {
		return time.Time{}, false
	}
	var seconds int64
	for i, unit := range []int64{24 * 60 * 60, 60 * 60, 60, 1} {
		n, err := strconv.ParseInt(parts[i+1], 10, 32)
		if err != nil {
			return time.Time{}, false
		}
		seconds += n * unit
	}
	return time.UnixMilli(began).Add(time.Duration(seconds) * time.Second), true
}
