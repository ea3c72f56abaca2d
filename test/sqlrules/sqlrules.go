// Package sqlrules checks that SQL statements work with any search path and in any query mode of pgx. Its tests check all SQL
// of the production code.
//
// The search path of a connection is the application's, and any role that may create in one of its schemas could put a
// function or a table there. So a statement names the schema of each function and table. now() and clock_timestamp()
// alone are bare: they have no arguments, so that no other function fits better than that of pg_catalog, which Postgres
// looks into first, unless the path says otherwise, as that of a test does whose clock moves. CURRENT_TIMESTAMP and its
// like, and pg_catalog.now(), would not move with it.
//
// And a parameter has a type, so that a function or operator is found by it alone, and so that a statement works in each
// mode of pgx: some of them don't learn from Postgres which type it expects.
//
// The default isolation level is the application's, too. Its tests check that production code begins each transaction at a
// level that it names, and runs no statement outside of one.
package sqlrules

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/rocketflow/rocketflow/internal/queries"
)

// Kind is the kind of a text of SQL.
type Kind int

const (
	// Query is a statement, which has to name the schema of its tables.
	Query Kind = iota
	// Migration is a file of statements that are executed with the schema as the search path.
	Migration
)

// Check returns the violations in a text of SQL. A placeholder for a quoted name is in braces, as {schema}.
func Check(sql string, kind Kind) []string {
	sql = queries.WithoutComments(dollarQuote.ReplaceAllString(sql, ""))
	c := checker{kind: kind, tokens: token.FindAllString(sql, -1), levels: []level{{}}}
	for _, m := range withName.FindAllStringSubmatch(sql, -1) {
		c.with = append(c.with, strings.ToLower(m[1]))
	}
	for c.at = range c.tokens {
		c.check()
	}
	return c.wrong
}

// withName matches the names of a WITH clause.
var withName = regexp.MustCompile(`(?i)(?:\bWITH|\bRECURSIVE|\),)\s+([a-z_]+)(?:\s*\([^()]*\))?\s+AS\s+(?:NOT\s+)?(?:MATERIALIZED\s+)?\(`)

// token matches strings, quoted names, {placeholders}, $1, names, numbers, and single characters.
var token = regexp.MustCompile(`'(?:[^']|'')*'|"(?:[^"]|"")*"|\{[^}]*\}|\$\d+|[A-Za-z_][A-Za-z_0-9]*|[0-9.]+|::|\S`)

// parameter matches $1 and its like. Where pgx doesn't describe a statement first, Postgres guesses the type of an untyped one.
var parameter = regexp.MustCompile(`^\$\d+$`)

// dollarQuote matches the quotes around the body of a function, which is SQL, too.
var dollarQuote = regexp.MustCompile(`\$[a-z]*\$`)

// level is the state of the scan between two parentheses.
type level struct {
	before string // the word before the parenthesis, in lower case
	from   bool   // within the tables of a FROM
}

type checker struct {
	kind   Kind
	tokens []string
	with   []string
	levels []level
	closed string // the word before the parentheses that ended last
	at     int
	wrong  []string
}

// token returns the token at a distance from the present one in lower case.
func (c *checker) token(distance int) string {
	if i := c.at + distance; i >= 0 && i < len(c.tokens) {
		return strings.ToLower(c.tokens[i])
	}
	return ""
}

func (c *checker) reject(format string, a ...any) {
	c.wrong = append(c.wrong, fmt.Sprintf(format, a...))
}

func (c *checker) check() {
	word, level := c.token(0), &c.levels[len(c.levels)-1]
	switch word {
	case "(":
		c.levels = append(c.levels, newLevel(c.token(-1)))
	case ")":
		if len(c.levels) > 1 {
			c.closed = level.before
			c.levels = c.levels[:len(c.levels)-1]
		}
	case "+", "-", "*", "/", "<", ">", "=":
		c.operator()
	case "from", "using":
		if level.before != "extract" && c.token(-1) != "distinct" && !(word == "using" && c.token(1) == "(") && c.token(-1) != "raise" {
			level.from = true
			c.table()
		}
	case "join":
		c.table()
	case "into": // what follows it may have a list of columns
		if next := c.token(1); c.kind == Query && isName(next) && next != "pg_catalog" {
			c.reject("table %s is not qualified: write {schema}.%[1]s", next)
		}
	case "update":
		if before := c.token(-1); before != "for" && before != "do" && before != "key" && c.token(1) != "set" {
			c.table()
		}
	case ",":
		if level.from {
			c.table()
		}
	case "where", "group", "order", "limit", "offset", "for", "returning", "union", "having", "window", "set", "on", "values", "select", ";":
		level.from = false
	case "current_timestamp", "current_date", "current_time", "localtime", "localtimestamp":
		c.reject("%s can't be moved by a test's clock: call clock_timestamp() or now()", strings.ToUpper(word))
	}
	if parameter.MatchString(word) && c.token(1) != "::" && c.kind == Query {
		c.reject("parameter %s has no type: write %[1]s::text, say", word)
	}
	if c.token(1) == "(" && isName(word) {
		c.function(word)
	}
}

func newLevel(before string) level { return level{before: before} }

func isName(word string) bool {
	return word != "" && (word[0] == '_' || word[0] >= 'a' && word[0] <= 'z')
}

// operator checks the sides of an operator: no operator of pg_catalog takes an integer and another number as they are, so
// that another role could make one that does.
func (c *checker) operator() {
	next := 1
	if c.token(1) == "=" { // the second half of <= or >=
		next = 2
	}
	left, right := numberEnding(c.token(-1), c.token(-2), c.closed), c.numberAt(next)
	if left != "" && right != "" && (left == "integer") != (right == "integer") {
		c.reject("%s %s %s: an integer beside a number that is none: write the type of one of them", c.token(-1), c.token(0), c.token(next))
	}
}

// numberEnding returns the kind of number that ends with a token, "integer" or another, or "" if it can't be seen.
func numberEnding(last, before, closed string) string {
	if last == ")" && closed == "extract" {
		return "numeric"
	}
	if before == "::" {
		return kindOfNumber(last)
	}
	return kindOfLiteral(last)
}

// numberAt returns the kind of number that begins at a distance.
func (c *checker) numberAt(distance int) string {
	kind := kindOfLiteral(c.token(distance))
	if c.token(distance) == "extract" {
		kind = "numeric"
	}
	for at := distance + 1; c.token(at) == "::"; at += 2 {
		kind = kindOfNumber(c.token(at + 1))
	}
	return kind
}

func kindOfLiteral(token string) string {
	switch {
	case integer.MatchString(token):
		return "integer"
	case decimal.MatchString(token):
		return "numeric"
	}
	return ""
}

// kindOfNumber returns the kind of number of a type, or "" if it is no number.
func kindOfNumber(name string) string {
	switch name {
	case "bigint", "integer", "int", "smallint":
		return "integer"
	case "float8", "numeric":
		return name
	}
	return ""
}

var (
	integer = regexp.MustCompile(`^\d+$`)
	decimal = regexp.MustCompile(`^\d*\.\d+$|^\d+\.$`)
)

// notFunctions stand before a parenthesis and are no functions.
var notFunctions = strings.Fields(`all and any array as by cast check coalesce conflict exists extract filter from greatest
	in include interval key lateral least materialized not nullif on operator or over partition range row returning select some
	then unique using values when where with within else case union join into distinct hash list`)

// clock may be called by their bare names.
var clock = []string{"now", "clock_timestamp"}

// function checks a name before a parenthesis.
func (c *checker) function(name string) {
	if c.token(-1) == "." {
		if c.token(-2) == "pg_catalog" && slices.Contains(clock, name) && c.kind == Query {
			c.reject("pg_catalog.%s() can't be moved by a test's clock: call it by its bare name", name)
		}
		return
	}
	if slices.Contains(notFunctions, name) || slices.Contains(clock, name) {
		return
	}
	if name == "unnest" && c.arguments() > 1 { // a construct of the parser, which takes that of pg_catalog
		return
	}
	if name == "gin" && c.token(-1) == "using" && c.kind == Migration { // a kind of index
		return
	}
	switch c.token(-1) {
	case "into", "as", "table", "on", "index", "references": // columns of an alias or a table
		return
	}
	if slices.Contains(c.with, name) { // its columns
		return
	}
	c.reject("function %s is not qualified: write pg_catalog.%[1]s", name)
}

// arguments counts what is in the parentheses after the present token.
func (c *checker) arguments() int {
	n, depth := 1, 0
	for _, t := range c.tokens[c.at+1:] {
		switch t {
		case "(", "[":
			depth++
		case ")", "]":
			depth--
		case ",":
			if depth == 1 {
				n++
			}
		}
		if depth == 0 {
			return n
		}
	}
	return n
}

// table checks what follows the present token, which is where a table is named.
func (c *checker) table() {
	if c.kind == Migration {
		return
	}
	next := c.token(1)
	for i := 1; next == "only" || next == "lateral" || next == "table"; i++ {
		next = c.token(i + 1)
	}
	switch {
	case next == "rows" && c.token(2) == "from": // ROWS FROM (functions)
	case next == "" || next[0] == '{' || next == "(" || next == "pg_catalog" || slices.Contains(c.with, next):
	case !isName(next) && next[0] != '"':
	case c.token(2) == "(": // a function
	default:
		c.reject("table %s is not qualified: write {schema}.%[1]s", next)
	}
}
