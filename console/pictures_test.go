package console

import (
	"crypto/sha256"
	"encoding/hex"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"testing"
)

var update = flag.Bool("update", false, "write docs/console/made-from.txt, once the pictures there are made anew")

// The pictures of docs/console were made from the templates and styles of today.
func TestPicturesAreCurrent(t *testing.T) {
	t.Parallel()
	const file = "../docs/console/made-from.txt"
	sum := sha256.New()
	err := fs.WalkDir(files, ".", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		data, err := files.ReadFile(path)
		fmt.Fprintf(sum, "%s %d\n%s", path, len(data), data)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	want := hex.EncodeToString(sum.Sum(nil)) + "\n"
	if *update {
		if err := os.WriteFile(file, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := os.ReadFile(file); err != nil || string(got) != want {
		t.Errorf("the pictures in docs/console show older templates (%v). Make them anew, from a folder that exists:\n"+
			"ROCKETFLOW_SCREENSHOTS=FOLDER rocketflow dev -- go test -C test/console -run TestPagesInABrowser\n"+
			"copy overview.png, event.png, edit.png, saga.png and apply.png from it to docs/console, and run go test ./console -run TestPicturesAreCurrent -update", err)
	}
}
