"""Single changes of the code, to measure whether the tests of a module notice them: `make mutants`.

Two libraries were tried first. mutmut changes no constants of modules and classes and no function with a
decorator, so it leaves out the CT windows, every table and every property. cosmic-ray writes each change into
the working tree and starts a new process for it: six seconds of importing torch for a test of a tenth of one.
"""
