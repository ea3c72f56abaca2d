package devstack

import (
	"cmp"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// What a killed process has left in memory is removed by the next; a directory that is in use, or somebody else's, is not.
func TestAbandonedDirectoriesAreRemoved(t *testing.T) {
	t.Parallel()
	parent := t.TempDir()
	open := func() *directory {
		d, err := openDirectory("", parent, true)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	used, abandoned, young := open(), open(), open()
	defer used.close()
	for _, d := range []*directory{abandoned, young} {
		if err := d.close(); err != nil { // unlocks, as the end of a process does
			t.Fatal(err)
		}
	}
	long := time.Now().Add(-time.Hour)
	for _, d := range []*directory{used, abandoned} {
		if err := os.Chtimes(d.sub(lockFile), long, long); err != nil {
			t.Fatal(err)
		}
	}
	other := filepath.Join(parent, temporaryPrefix+"other")
	if err := os.Mkdir(other, 0o700); err != nil {
		t.Fatal(err)
	}
	removeAbandoned(parent, time.Minute)
	for path, want := range map[string]bool{used.path: true, abandoned.path: false, young.path: true, other: true} {
		if exists(path) != want {
			t.Errorf("%s exists: %v, want %v", path, !want, want)
		}
	}
}

// A server without fsync has its data in memory where there is room, else on the disk; Stop removes it.
func TestNoFsyncIsInMemory(t *testing.T) {
	t.Parallel()
	want, err := filepath.EvalSymlinks(cmp.Or(inMemory(), os.TempDir()))
	if err != nil {
		t.Fatal(err)
	}
	p, err := StartPostgres(t.Context(), PostgresConfig{NoFsync: true})
	if err != nil {
		t.Fatal(err)
	}
	if filepath.Dir(p.Dir()) != want {
		t.Errorf("the data is in %s, want %s", p.Dir(), want)
	}
	if err := p.Stop(t.Context()); err != nil || exists(p.Dir()) {
		t.Errorf("%s is still there (%v)", p.Dir(), err)
	}
}
