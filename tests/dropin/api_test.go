package main

import (
	"go/importer"
	"go/token"
	"go/types"
	"io"
	"os"
	"os/exec"
	"sort"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const (
	theirPackage = "go.etcd.io/etcd/client/v3/concurrency"
	ourPackage   = "github.com/etcdlock/etcdlock/concurrency"
)

// The exported API is etcd's, to the last name and type. Only the parameters of the options are each package's own.
func TestTheAPIIsThatOfEtcdsPackage(t *testing.T) {
	want, have := api(t, theirPackage), api(t, ourPackage)
	require.Greater(t, len(want), 40)
	for name, is := range want {
		require.Equal(t, is, have[name], "%s", name)
	}
	for name := range have {
		_, there := want[name]
		require.True(t, there, "%s is not in etcd's package", name)
	}
}

// api lists what a package exports, with its type, and the package's own name out of it.
func api(t *testing.T, path string) map[string]string {
	t.Helper()
	exported := func(path string) (io.ReadCloser, error) {
		file, err := exec.CommandContext(t.Context(), "go", "list", "-export", "-f", "{{.Export}}", path).Output()
		if err != nil {
			return nil, err
		}
		return os.Open(strings.TrimSpace(string(file)))
	}
	pkg, err := importer.ForCompiler(token.NewFileSet(), "gc", exported).Import(path)
	require.NoError(t, err)
	own := func(p *types.Package) string {
		switch p.Path() {
		case theirPackage, ourPackage:
			return ""
		}
		return p.Path()
	}
	list := map[string]string{}
	add := func(name string, obj types.Object) { list[name] = types.TypeString(obj.Type(), own) }
	scope := pkg.Scope()
	for _, name := range scope.Names() {
		obj := scope.Lookup(name)
		if !obj.Exported() {
			continue
		}
		tn, ok := obj.(*types.TypeName)
		if !ok {
			add(name, obj)
			if c, ok := obj.(*types.Const); ok {
				list[name] += " = " + c.Val().String()
			}
			continue
		}
		list[name] = "type"
		if types.IsInterface(tn.Type()) {
			list[name] += " " + types.TypeString(tn.Type().Underlying(), own)
		}
		set := types.NewMethodSet(types.NewPointer(tn.Type()))
		if types.IsInterface(tn.Type()) {
			continue
		}
		for i := range set.Len() {
			if m := set.At(i).Obj(); m.Exported() {
				add(name+"."+m.Name(), m)
			}
		}
		if st, ok := tn.Type().Underlying().(*types.Struct); ok {
			for i := range st.NumFields() {
				if f := st.Field(i); f.Exported() {
					add(name+"."+f.Name(), f)
				}
			}
		}
	}
	return list
}

// What the package is made of: etcdlock, etcd's client, and nothing else.
func TestTheClosureHasNothingNew(t *testing.T) {
	list := func(path string) map[string]bool {
		out, err := exec.CommandContext(t.Context(), "go", "list", "-deps", path).Output()
		require.NoError(t, err)
		deps := map[string]bool{}
		for _, dep := range strings.Fields(string(out)) {
			deps[dep] = true
		}
		return deps
	}
	known, more := list(theirPackage), []string{}
	for dep := range list("github.com/etcdlock/etcdlock") {
		known[dep] = true
	}
	for dep := range list(ourPackage) {
		if !known[dep] && dep != ourPackage {
			more = append(more, dep)
		}
	}
	sort.Strings(more)
	require.Empty(t, more)
}
