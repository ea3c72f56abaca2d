package console_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha512"
	"encoding/base64"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

// axe-core of npm, which is fetched once.
const (
	axeVersion = "4.10.3"
	axeHash    = "Xm7bpRXnDSX2YE2YFfBk2FnF0ep6tmG7xPh8iHee8MIcrgq762Nkce856dYtJYLkuIoYZvGfTs/PbZhideTcEg==" // of the package, as npm's lock files have it
)

// axeScript returns the code of axe-core, fetched with npm and kept in the user's cache.
func axeScript(t *testing.T) string {
	t.Helper()
	folder, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(folder, "rocketflow", "axe-core-"+axeVersion+".js")
	if code, err := os.ReadFile(file); err == nil {
		return string(code)
	}
	packed := t.TempDir()
	fetch := exec.CommandContext(t.Context(), "npm", "pack", "--silent", "--pack-destination", packed, "axe-core@"+axeVersion)
	if out, err := fetch.CombinedOutput(); err != nil {
		t.Fatalf("fetch axe-core with npm: %v: %s", err, out)
	}
	data, err := os.ReadFile(filepath.Join(packed, "axe-core-"+axeVersion+".tgz"))
	if err != nil {
		t.Fatal(err)
	}
	if sum := sha512.Sum512(data); base64.StdEncoding.EncodeToString(sum[:]) != axeHash {
		t.Fatalf("axe-core %s has the hash %s", axeVersion, base64.StdEncoding.EncodeToString(sum[:]))
	}
	zip, err := gzip.NewReader(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	for files := tar.NewReader(zip); ; {
		head, err := files.Next()
		if err != nil {
			t.Fatalf("axe-core has no axe.min.js: %v", err)
		}
		if head.Name != "package/axe.min.js" {
			continue
		}
		code, err := io.ReadAll(files)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err == nil {
			_ = os.WriteFile(file, code, 0o644) // it is fetched again otherwise
		}
		return string(code)
	}
}

// checkAccess returns what axe-core finds on the page.
func checkAccess(b *tab, axe string) (list []string) {
	b.t.Helper()
	var text string
	b.run(chromedp.Evaluate(axe+"; true", nil), chromedp.Evaluate(
		`axe.run(document, {resultTypes: ["violations"]}).then(r => JSON.stringify(r.violations.map(v => v.impact + " " + v.id + ": " + v.help + ": " + v.nodes.slice(0, 3).map(n => n.html + " " + n.any.map(a => a.message)).join(" | "))))`,
		&text, func(p *runtime.EvaluateParams) *runtime.EvaluateParams { return p.WithAwaitPromise(true) }))
	if err := json.Unmarshal([]byte(text), &list); err != nil {
		b.t.Fatal(err)
	}
	return list
}
