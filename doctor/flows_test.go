package doctor

import (
	"maps"
	"strings"
	"testing"
	"time"
)

func init() {
	maps.Copy(proofs, map[string]proof{
		"timeout-overdue": {
			finding: func(w *world) {
				w.database()
				w.timeout("order/o-1", time.Hour)
			}, says: "1 timeout overdue, the oldest for 1h0m", mends: "rocketflow inspect timeouts --schema test_",
			ok: func(w *world) {
				w.database()
				w.timeout("order/o-1", -time.Hour)
			},
			unknown: (*world).poor,
		},
		"timeout-stuck": {
			finding: func(w *world) {
				w.database()
				w.timeout("order/o-1", time.Hour)
				w.exec("UPDATE timeout SET stuck_at = now()")
			}, says: "1 timeout stuck", mends: "rocketflow inspect timeouts",
			ok: func(w *world) {
				w.database()
				w.timeout("order/o-1", time.Hour)
			},
			unknown: (*world).poor,
		},
		"saga-failed": {
			finding: func(w *world) {
				w.database()
				w.exec(`INSERT INTO saga_waiting (saga, key, status, begun, state, next_at, expires_at, event_id, source, topic, type, subject, sequence, previous, recorded_at, database, content_type, body)
					VALUES ('order', 'it''s o-1', 'failed', true, 'open', 'infinity', now(), gen_random_uuid(), 'shop', 'orders', 'order.placed', 'o-1', 1, 0, now(), '', 'application/json', '{}')`)
			}, says: "1 event of saga order failed", mends: `rocketflow saga retry 'it'\''s o-1' --name order --schema test_`,
			ok:      func(w *world) { w.database() },
			unknown: (*world).poor,
		},
		"saga-idle": {
			finding: func(w *world) {
				w.database()
				w.saga("a-2", 1, 8*24*time.Hour)
				w.saga("o-1", 1, 10*24*time.Hour)
			}, says: "2 sagas order version 1 in state open without a deadline, unchanged for up to 10 days: o-1", mends: "rocketflow why o-1",
			ok: func(w *world) {
				w.database()
				w.saga("o-1", 1, time.Hour)
				w.saga("o-2", 1, 10*24*time.Hour)
				w.timeout("order/o-2", -time.Hour)
			},
			unknown: (*world).poor,
		},
		"saga-version": {
			finding: func(w *world) {
				w.database()
				w.saga("o-1", 1, time.Hour)
				w.config.Expect.Sagas = []SagaVersion{{"order", 2}}
			}, says: "sagas order of version 1 run", mends: "register saga order version 1",
			ok: func(w *world) {
				w.database()
				w.saga("o-1", 1, time.Hour)
				w.config.Expect.Sagas = []SagaVersion{{"order", 2}, {"order", 1}}
			},
			unknown: func(w *world) {
				w.database()
				w.saga("o-1", 1, time.Hour)
			},
		},
	})
}

// A process knows the sagas that it registers itself, and nothing of others.
func TestSagaVersionsOfTheProcess(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]Status{"order=1": OK, "order=2": Finding, "payment=1": Unknown, "": Unknown} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := &world{T: t, config: Config{Only: []string{"saga-version"}}}
			w.database()
			w.saga("o-1", 1, time.Hour)
			w.config.Sagas = func() (versions []SagaVersion) {
				if saga, version, ok := strings.Cut(name, "="); ok {
					versions = append(versions, SagaVersion{saga, int(version[0] - '0')})
				}
				return versions
			}
			if r := w.examine().Results; len(r) != 1 || r[0].Status != want {
				t.Errorf("want %s, got %+v", want, r)
			}
		})
	}
}

// Where there are more sagas than are looked at, the rest is not known.
func TestManySagasAreNotAllLookedAt(t *testing.T) {
	t.Parallel()
	w := &world{T: t, config: Config{Only: []string{"saga-idle"}, mostSagas: 2}}
	w.database()
	w.saga("o-1", 1, time.Hour)
	if r := w.examine(); len(r.Findings())+len(r.Unknown()) > 0 {
		t.Errorf("got %+v", r.Results)
	}
	w.saga("o-2", 1, time.Hour)
	if r := w.examine().Results; len(r) != 1 || r[0].Status != Unknown || !strings.Contains(r[0].Observed, "more than 2 sagas order version 1 in state open") {
		t.Errorf("got %+v", r)
	}
	w.exec("UPDATE saga SET changed_at = now() - interval '10 d'")
	if r := w.examine(); len(r.Findings()) != 1 || len(r.Unknown()) != 1 {
		t.Errorf("got %+v", r.Results)
	}
}

// timeout arms a timeout that is due for so long.
func (w *world) timeout(key string, due time.Duration) {
	w.Helper()
	w.exec(`INSERT INTO timeout (key, name, epoch, due_at, next_sweep_at, source, topic, type, subject, content_type, body)
		VALUES ($1, 'deadline', gen_random_uuid(), now() - $2::interval, now(), 'shop', 'timeouts', 'order.due', 'o-1', 'application/json', '{}')`, key, due)
}

// saga begins a saga that has not changed for so long.
func (w *world) saga(key string, version int, age time.Duration) {
	w.Helper()
	w.exec("INSERT INTO saga (name, key, version, state, data, revision, changed_at) VALUES ('order', $1, $2, 'open', '{}', 1, now() - $3::interval)", key, version, age)
}
