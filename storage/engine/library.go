package engine

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
)

// LibraryEnv names a copy of libchdb that wins over every other.
const LibraryEnv = "SIGNALBOX_LIBCHDB"

// FindLibrary says where libchdb is: the environment's copy, the configured
// one, one beside the program, or the npm package in a node_modules of the
// working directory, the program's directory or a directory above either.
func FindLibrary(configured string) (string, error) {
	file, pkg := libraryNames(runtime.GOOS, runtime.GOARCH)
	for _, named := range []struct{ from, path string }{{LibraryEnv, os.Getenv(LibraryEnv)}, {"library", configured}} {
		if named.path == "" {
			continue
		}
		if !isFile(named.path) {
			return "", fmt.Errorf("engine: %s names %s, and there is no such file", named.from, named.path)
		}
		return filepath.Abs(named.path)
	}
	var starts []string
	if exe, err := os.Executable(); err == nil {
		if real, err := filepath.EvalSymlinks(exe); err == nil {
			exe = real
		}
		starts = append(starts, filepath.Dir(exe))
		if p := filepath.Join(filepath.Dir(exe), file); isFile(p) {
			return p, nil
		}
	}
	if wd, err := os.Getwd(); err == nil {
		starts = append([]string{wd}, starts...)
	}
	for _, dir := range starts {
		for {
			if p := filepath.Join(dir, "node_modules", "@chdb", pkg, file); isFile(p) {
				return p, nil
			}
			up := filepath.Dir(dir)
			if up == dir {
				break
			}
			dir = up
		}
	}
	return "", fmt.Errorf("engine: %s is not installed: run `make deps` (or `npm ci`) in the source tree, put the file beside the program, or name a copy in %s", file, LibraryEnv)
}

// libraryNames are the file and the npm package that carries it.
func libraryNames(goos, goarch string) (file, pkg string) {
	arch := map[string]string{"amd64": "x64"}[goarch]
	if arch == "" {
		arch = goarch
	}
	if goos == "darwin" {
		// The macOS packages carry the library under its Linux name.
		return "libchdb.so", "lib-darwin-" + arch
	}
	return "libchdb.so", "lib-" + goos + "-" + arch + "-gnu"
}

func isFile(path string) bool {
	st, err := os.Stat(path)
	return err == nil && st.Mode().IsRegular()
}
