package operate

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/internal/installation"
	"github.com/rocketflow/rocketflow/internal/printable"
	"github.com/rocketflow/rocketflow/internal/valid"
	"github.com/rocketflow/rocketflow/migrations"
)

// maxSchemas bounds how many schemas Discover returns.
const maxSchemas = 200

// SystemConfig configures a System.
type SystemConfig struct {
	// Operators are the schemas that are read, in any databases. At least one is required. Only Config.Pool and Config.Schema
	// of each are used, and Config.Broker by a reconciliation that sends missing events.
	Operators []*Operator
	// Unread are schemas that can't be read, so that a report can say so. Discover returns them.
	Unread []UnreadSchema
	// Broker is asked for what only it knows: which messages it holds, and what consumer groups have read. nil: it isn't asked,
	// and reports say so.
	Broker broker.Inspector
}

// System reads the schemas of several services together, so that an event is followed from its publisher to its consumers. All
// methods are safe for concurrent use.
type System struct {
	config SystemConfig
}

// UnreadSchema is a schema with rocketflow's tables that can't be read.
type UnreadSchema struct {
	Schema string `json:"schema"` // "*": all schemas of a database, which Reason names
	Reason string `json:"reason"`
}

// NewSystem returns a System. It doesn't connect to anything. An error is a *rocketflow.FieldError.
func NewSystem(c SystemConfig) (*System, error) {
	if len(c.Operators) == 0 {
		return nil, valid.Field("operate.SystemConfig.Operators", "missing: want at least one schema")
	}
	for i, o := range c.Operators {
		if o == nil {
			return nil, valid.Fieldf("operate.SystemConfig.Operators", "[%d] is nil", i)
		}
	}
	return &System{c}, nil
}

// Discover returns an Operator for each schema of a database that has the tables of this version and that the role may read,
// and the other schemas that have rocketflow's tables, each with the reason; 200 of them at most. With schemas it looks only at
// those, and one that has no tables is among the unread.
func Discover(ctx context.Context, pool *pgxpool.Pool, schemas ...string) (found []*Operator, unread []UnreadSchema, err error) {
	if len(schemas) == 0 {
		o, err := New(Config{Pool: pool})
		if err != nil {
			return nil, nil, err
		}
		if schemas, err = o.Schemas(ctx, maxSchemas); err != nil {
			return nil, nil, err
		}
	}
	for _, schema := range schemas {
		o, err := New(Config{Pool: pool, Schema: schema})
		if err != nil {
			return nil, nil, err
		}
		err = migrations.Check(ctx, pool, schema)
		if err == nil {
			_, _, err = installation.Read(ctx, pool, schema)
		}
		switch {
		case err == nil:
			found = append(found, o)
		case ctx.Err() != nil:
			return nil, nil, fmt.Errorf("look for schemas: %w", err)
		case errors.Is(err, rocketflow.ErrNotMigrated):
			unread = append(unread, UnreadSchema{schema, err.Error() + ": migrate it with `rocketflow migrate up --schema " + schema + "`"})
		default:
			unread = append(unread, UnreadSchema{schema, err.Error()})
		}
	}
	return found, unread, nil
}

// member is a schema as one report reads it.
type member struct {
	*Operator
	service string // the source that the schema belongs to; the schema's name before the service's first start
	// key tells it from other schemas: that of another database may have the same name, which by default all have.
	key string
	// database is where the schema is, host:port/name; empty if all that are read are in one database.
	database string
}

// command returns a command line that works on the schema. The connection of its database may have a password, so a comment says which it
// is, unless there is one only.
func (m *member) command(words ...string) string {
	line := command(append(words, "--schema", m.config.Schema)...)
	if m.database != "" {
		line += "  # in database " + printable.Word(m.database)
	}
	return line
}

// members reads to which services the schemas belong.
func (y *System) members(ctx context.Context) ([]member, error) {
	return y.eachMember(ctx, func(_ *Operator, err error) error { return err })
}

// eachMember reads to which services the schemas belong. It calls unread for one that can't be read, and returns the error of unread,
// if any.
func (y *System) eachMember(ctx context.Context, unread func(*Operator, error) error) ([]member, error) {
	var list []member
	seen := map[string]bool{}      // the same schema may have been named twice, also through two addresses of the database
	databases := map[string]bool{} // also of what can't be read
	for _, o := range y.config.Operators {
		databases[o.database()] = true
		one, cancel := context.WithTimeout(ctx, memberTimeout)
		id, owner, err := installation.Read(one, o.config.Pool, o.config.Schema)
		cancel()
		if err != nil {
			if err := unread(o, err); err != nil {
				return nil, err
			}
			continue
		}
		if key := id + "/" + o.config.Schema; !seen[key] {
			seen[key] = true
			list = append(list, member{o, cmp.Or(owner, o.config.Schema), key, o.database()})
		}
	}
	if len(databases) == 1 {
		for i := range list {
			list[i].database = ""
		}
	}
	slices.SortStableFunc(list, func(a, b member) int { return cmp.Compare(a.service, b.service) })
	return list, nil
}

// database returns the name of the Operator's database, with its server and without credentials.
func (o *Operator) database() string {
	c := o.config.Pool.Config().ConnConfig
	return net.JoinHostPort(c.Host, strconv.Itoa(int(c.Port))) + "/" + c.Database
}
