package console

import (
	"cmp"
	"log/slog"
	"net/http"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/doctor"
	"github.com/rocketflow/rocketflow/internal/logging"
	"github.com/rocketflow/rocketflow/internal/valid"
	"github.com/rocketflow/rocketflow/operate"
	"github.com/rocketflow/rocketflow/saga"
)

// Config configures a Console.
type Config struct {
	// Services are shown. At least one is required.
	Services []Service
	// Unread are schemas that can't be read, which pages mention. operate.Discover returns them.
	Unread []operate.UnreadSchema
	// Broker is asked for what only it knows, such as what consumers have not read. nil: pages say that it wasn't asked.
	Broker broker.Inspector

	// Authorize says who makes a request. An error refuses it; its text is logged and not sent. Required.
	Authorize func(*http.Request) (Viewer, error)
	// Redact returns what is shown of a body, or of the value of a header or of an extension attribute, to viewers that may see bodies. It must not change Content.Body.
	// Defaults to all of it.
	Redact func(Content) []byte

	// Prefix is the path under which the console is mounted, such as "/ops/rocketflow". Requests come with it, so don't strip it.
	// Defaults to "": the console has all paths.
	Prefix string
	// Hosts are the names under which the console is reached, without ports. Others are refused, which protects a console without
	// a login from pages that name its address as their own (DNS rebinding).
	// Defaults to none: all are accepted.
	Hosts []string
	// TrustedOrigins are other origins whose pages may send changes, such as "https://ops.example.com" if a proxy of that name changes
	// the Host header.
	// Defaults to none.
	TrustedOrigins []string

	// Doctor examines on demand; a started one also by itself. nil: the page says that none is configured.
	Doctor *doctor.Doctor
	// Reconcile says what a reconciliation on demand compares. Mend isn't used.
	Reconcile operate.ReconcileConfig

	// MaxChange is the maximum number of events that one action changes.
	// Defaults to 1000.
	MaxChange int
	// Logger gets actions, refused requests and failures.
	// Defaults to warnings and errors on stderr.
	Logger *slog.Logger
}

// Service is a service that a Console shows.
type Service struct {
	// Name identifies it in addresses, so it should stay the same. It must be unique.
	// Defaults to the schema of Operator.
	Name string
	// Operator reads and changes its schema. Required. It needs operate.Config.Broker for Resend.
	Operator *operate.Operator
	// Sagas describe the definitions of the service's sagas, of which the console draws the graphs: saga.Definition.Graph, or all of an
	// engine by saga.Engine.Graphs. Of several versions the highest is drawn. A saga without one is drawn by the transitions that are
	// recorded.
	// Defaults to none.
	Sagas []saga.Graph
}

// Content is a body that is to be shown.
type Content struct {
	Viewer  Viewer
	Service string
	Event   rocketflow.Event // of which Body is the body; its own Body is empty. With Saga: empty
	Saga    string           // the name of the saga of which Body is the data, as JSON. Empty: it is of an event
	Key     string           // of the saga
	Header  string           // the name of the event's header or extension attribute of which Body is the value. Empty: it is none
	Body    []byte
}

func (c Config) withDefaults() Config {
	c.Services = slices.Clone(c.Services)
	for i, s := range c.Services {
		if s.Operator != nil {
			c.Services[i].Name = cmp.Or(s.Name, s.Operator.Schema())
		}
	}
	c.Prefix = strings.TrimSuffix(c.Prefix, "/")
	hosts := make([]string, len(c.Hosts))
	for i, h := range c.Hosts {
		hosts[i] = hostOf(h)
	}
	c.Hosts = hosts
	c.MaxChange = cmp.Or(c.MaxChange, 1000)
	c.Logger = logging.Or(c.Logger)
	return c
}

func (c Config) validate() error {
	switch {
	case len(c.Services) == 0:
		return valid.Field("console.Config.Services", "missing: want at least one")
	case c.Authorize == nil:
		return valid.Field("console.Config.Authorize", "missing: the console is closed unless it says who may see it")
	case c.Prefix != "" && (!strings.HasPrefix(c.Prefix, "/") || path.Clean(c.Prefix) != c.Prefix || strings.ContainsAny(c.Prefix, " \t{}?#%")):
		return valid.Fieldf("console.Config.Prefix", "%q: want a path that begins with /, has nothing to clean or to escape, and no wildcard", c.Prefix)
	case c.MaxChange < 1:
		return valid.Fieldf("console.Config.MaxChange", "%d: want at least 1", c.MaxChange)
	case c.Reconcile.Grace < 0 || c.Reconcile.Since < 0:
		return valid.Field("console.Config.Reconcile", "negative")
	}
	names := map[string]bool{}
	for i, s := range c.Services {
		switch {
		case s.Operator == nil:
			return valid.Fieldf("console.Config.Services", "[%d].Operator is nil", i)
		case names[s.Name]:
			return valid.Fieldf("console.Config.Services", "[%d].Name: %q is the name of another: set Name", i, s.Name)
		}
		names[s.Name] = true
	}
	return nil
}

// Times between two readings of an overview: while somebody looks at them, and otherwise.
const (
	watchedPause = time.Second
	restingPause = 10 * time.Second
	watchedFor   = 15 * time.Second // after a look
)
