package outbox

import (
	"regexp"
	"strconv"
	"strings"
)

// controlWords are the first words of the statements that begin or end a transaction or a savepoint.
var controlWords = []string{"savepoint", "release", "rollback", "abort", "commit", "end", "prepare", "begin", "start"}

var (
	anyControlWord = regexp.MustCompile(`(?i)\b(` + strings.Join(controlWords, "|") + `)\b`)
	// rollbackTo matches a rollback to a savepoint of pgx, whose names are sp_1, sp_2 and so on.
	rollbackTo = regexp.MustCompile(`(?i)\brollback\s+(?:work\s+|transaction\s+)?to\s+(?:savepoint\s+)?"?sp_(\d+)"?`)
)

// isTransactionControl reports whether sql may begin or end a transaction or a savepoint. A false positive costs a round
// trip; a false negative could lose an event, or send one of a part that was rolled back.
func isTransactionControl(sql string) bool {
	if i := strings.IndexByte(sql, ';'); i >= 0 && strings.TrimSpace(sql[i+1:]) != "" {
		return anyControlWord.MatchString(sql)
	}
	word, ok := firstWord(sql)
	if !ok {
		return anyControlWord.MatchString(sql)
	}
	for _, w := range controlWords {
		if len(w) == len(word) && strings.EqualFold(w, word) {
			return true
		}
	}
	return false
}

// firstWord returns the first word of sql after spaces and comments. ok is false if a comment has no end.
func firstWord(sql string) (word string, ok bool) {
	for {
		sql = strings.TrimLeft(sql, " \t\r\n\f\v")
		switch {
		case strings.HasPrefix(sql, "--"):
			_, sql, _ = strings.Cut(sql, "\n")
		case strings.HasPrefix(sql, "/*"):
			end := strings.Index(sql, "*/")
			if end < 0 || strings.Contains(sql[2:end], "/*") { // they nest in Postgres
				return "", false
			}
			sql = sql[end+2:]
		default:
			n := 0
			for n < len(sql) && (sql[n]|0x20 >= 'a' && sql[n]|0x20 <= 'z') {
				n++
			}
			return sql[:n], true
		}
	}
}

// rolledBackTo returns the numbers of pgx's savepoints that sql rolls back to.
func rolledBackTo(sql string) (numbers []int64) {
	for _, m := range rollbackTo.FindAllStringSubmatch(sql, -1) {
		if n, err := strconv.ParseInt(m[1], 10, 64); err == nil {
			numbers = append(numbers, n)
		}
	}
	return numbers
}
