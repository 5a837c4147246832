package notebooks

import (
	"encoding/json"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestNotebookRunsInJupyter executes the notebook headless as it is, with all of its steps.
func TestNotebookRunsInJupyter(t *testing.T) {
	if testing.Short() {
		t.Skip("trains for 200 steps")
	}
	if why := jupyterLacks(); why != "" {
		t.Skip("needs Jupyter (jupyter nbconvert), the gonb kernel and goimports: " + why)
	}
	out := t.TempDir()
	cmd := exec.Command("jupyter", "nbconvert", "--to", "notebook", "--execute", "--ExecutePreprocessor.timeout=900",
		"--output-dir", out, "--output", file, file)
	log, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", log)
	n := read(t, filepath.Join(out, file))
	checkOutputs(t, n, parameter(t, n, "steps"))
}

// jupyterLacks says what is missing, "" for nothing.
func jupyterLacks() string {
	for _, program := range []string{"jupyter", "jupyter-nbconvert", "goimports"} {
		if _, err := exec.LookPath(program); err != nil {
			return "no " + program
		}
	}
	out, err := exec.Command("jupyter", "kernelspec", "list", "--json").Output()
	if err != nil {
		return "jupyter kernelspec list: " + err.Error()
	}
	var list struct {
		Kernels map[string]any `json:"kernelspecs"`
	}
	if err := json.Unmarshal(out, &list); err != nil {
		return "jupyter kernelspec list: " + err.Error()
	}
	if list.Kernels["gonb"] == nil {
		return "no kernel gonb"
	}
	return ""
}
