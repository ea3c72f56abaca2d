package service

import (
	"cmp"
	"fmt"
	"regexp"

	"github.com/jackc/pgx/v5"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/app"
)

// Config holds the settings of a service: rocketflow's, whose Schema is that of rocketflow's tables, and the service's own.
type Config struct {
	app.Config

	// Tables is the schema of the service's own tables.
	Tables string
}

var schemaName = regexp.MustCompile(`^[A-Za-z0-9_-]{1,48}$`)

// ConfigFromEnv reads the variables of app.ConfigFromEnv and DATABASE_SCHEMA, the schema of the service's own tables, which
// defaults to tables. ROCKETFLOW_SCHEMA defaults to the service's name and "_rocketflow". Rocketflow's tables are migrated
// at the start. An error is a *rocketflow.FieldError that names the variable.
func ConfigFromEnv(service, tables string, getenv func(string) string) (Config, error) {
	base, err := app.ConfigFromEnv(service, getenv)
	if err != nil {
		return Config{}, err
	}
	c := Config{base, cmp.Or(getenv("DATABASE_SCHEMA"), tables)}
	c.Schema = cmp.Or(c.Schema, service+"_rocketflow")
	c.ListenAddr = cmp.Or(c.ListenAddr, "127.0.0.1:8080")
	c.Migrate = true
	bad := func(variable, format string, args ...any) (Config, error) {
		return Config{}, &rocketflow.FieldError{Field: variable, Reason: fmt.Sprintf(format, args...)}
	}
	switch {
	case !schemaName.MatchString(c.Tables):
		return bad("DATABASE_SCHEMA", "%q: want 1 to 48 letters, digits, _ or -", c.Tables)
	case c.Schema == c.Tables:
		return bad("ROCKETFLOW_SCHEMA", "%q: want another schema than DATABASE_SCHEMA", c.Schema)
	}
	return c, nil
}

// rocketflow returns the Config for rocketflow's modules. The pool finds names in the service's own schema first, and then
// where DATABASE_URL says (search_path).
func (c Config) rocketflow() app.Config {
	config := c.Config
	config.Database = config.Database.Copy()
	parameters := config.Database.ConnConfig.RuntimeParams
	path := pgx.Identifier{c.Tables}.Sanitize()
	if given := parameters["search_path"]; given != "" {
		path += ", " + given
	}
	parameters["search_path"] = path
	return config
}
