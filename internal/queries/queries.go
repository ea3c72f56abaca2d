// Package queries reads SQL statements from .sql files. Each statement of a file begins with a line "-- name: Name", and may have
// comments. {schema} stands for the Postgres schema of rocketflow's tables, which the user chooses.
//
// The text that is sent to Postgres begins with the line "-- name: Name", which identifies the statement in traces, logs and
// pg_stat_statements, and has no other comments.
package queries

import (
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
)

const mark = "-- name: "

// Set holds the statements of a file by name.
type Set map[string]string

// Parse returns the statements of a file for a schema. It panics if a statement has no name or if two have the same: no user can
// cause that.
func Parse(file, schema string) Set {
	set := Set{}
	quoted := pgx.Identifier{schema}.Sanitize()
	_, rest, _ := strings.Cut("\n"+file, "\n"+mark)
	for rest != "" {
		var head string
		head, rest, _ = strings.Cut(rest, "\n"+mark)
		name, statement, ok := strings.Cut(head, "\n")
		name = strings.TrimSpace(name)
		if _, twice := set[name]; !ok || name == "" || twice {
			panic(fmt.Sprintf("queries: bad or repeated name %q", name))
		}
		set[name] = mark + name + "\n" + strings.ReplaceAll(WithoutComments(statement), "{schema}", quoted)
	}
	return set
}

// Get returns the statement with this name. It panics if there is none.
func (s Set) Get(name string) string {
	q, ok := s[name]
	if !ok {
		panic(fmt.Sprintf("queries: no statement %q", name))
	}
	return q
}

// WithoutComments returns SQL without comments and empty lines. It doesn't change strings and quoted names.
func WithoutComments(sql string) string {
	var b strings.Builder
	for sql != "" {
		switch length, comment := token(sql); {
		case comment:
			sql = sql[length:]
		default:
			b.WriteString(sql[:length])
			sql = sql[length:]
		}
	}
	var lines []string
	for line := range strings.Lines(b.String()) {
		if line = strings.TrimRight(line, " \t\r\n"); line != "" {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, "\n")
}

// token returns the length of the comment, string or quoted name that sql begins with, or of the text before the next one, and
// whether it is a comment.
func token(sql string) (length int, comment bool) {
	upTo := func(from int, end string) int {
		if i := strings.Index(sql[from:], end); i >= 0 {
			return from + i + len(end)
		}
		return len(sql)
	}
	switch {
	case strings.HasPrefix(sql, "--"):
		if i := strings.IndexByte(sql, '\n'); i >= 0 {
			return i, true // without the line break
		}
		return len(sql), true
	case strings.HasPrefix(sql, "/*"):
		return upTo(2, "*/"), true
	case sql[0] == '\'' || sql[0] == '"': // a doubled quote begins the next token
		return upTo(1, sql[:1]), false
	case sql[0] == '$':
		if tag := dollarTag(sql); tag != "" {
			return upTo(len(tag), tag), false
		}
		return 1, false
	}
	for i := 1; i < len(sql); i++ {
		switch sql[i] {
		case '\'', '"', '$':
			return i, false
		case '-', '/':
			if strings.HasPrefix(sql[i:], "--") || strings.HasPrefix(sql[i:], "/*") {
				return i, false
			}
		}
	}
	return len(sql), false
}

// dollarTag returns the $tag$ or $$ that sql begins with, or "" if it begins with a parameter.
func dollarTag(sql string) string {
	for i := 1; i < len(sql); i++ {
		switch c := sql[i]; {
		case c == '$':
			return sql[:i+1]
		case c == '_' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || i > 1 && c >= '0' && c <= '9':
		default:
			return ""
		}
	}
	return ""
}
