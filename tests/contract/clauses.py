"""The clauses of the behaviour contract by section, each with a short title, and what comes later."""

from __future__ import annotations

SECTIONS: dict[str, str] = {
    "Names, environments, sizes, durations": """
        B1 internal names
        B2 names without a letter or digit
        B3 display name beside internal name
        B4 name of an unnamed workflow
        B5 identity and id of a job
        B6 environments and how they are written
        B7 memory sizes
        B8 unreadable sizes and cores
        B9 cores under two keys
        B10 durations
        B11 unreadable durations
        B12 durations in JSON
    """,
    "Tasks and the graph": """
        B13 a task called as a plain function
        B14 a task called inside a running task
        B15 nothing is left behind by a local run
        B16 calls in a body become tasks
        B17 arguments are bound at the call
        B18 assigning arguments
        B19 dependencies by data
        B20 tasks inside containers
        B21 one task passed several times
        B22 list of dependencies in JSON
        B23 >> and << between tasks
        B24 >> and << with lists
        B25 an order without data
        B26 a task after itself
        B27 circles
        B28 automatic names
        B29 alias
        B30 alias frees a name
        B31 counters of names
        B32 renaming changes nothing else
        B33 order, hash and equality of tasks
        B34 set_resources
        B35 variables of a task
        B36 a task without a workflow
        B37 dependencies given by name, task or id
        B38 one package for a workflow
        B39 two tasks of one name in a module
        B40 platform parameters in a call
        B41 values of platform parameters
        B42 variables behind platform parameters
        B43 arguments come back with results in them
        B44 pickled arguments and results
        B45 arguments belong to a version
        B46 the body runs at the call
        B47 a workflow without tasks
    """,
    "Calling a workflow": """
        B48 a call saves and starts
        B49 a call does not raise
        B50 local run
        B51 local run with a schedule
        B52 user of a local run
        B53 to_json
        B54 save_only
        B55 instant run and its handle
        B56 what a call overrides
        B57 calls go to dev
        B57a saving to pre and prod directly
        B58 a body that raises
        B59 workflow as a context
        B60 calls while the platform imports
        B60a jobs while the platform imports
        B61 without a platform
    """,
    "Default resources": """
        B62 of jobs
        B63 of workflows
        B64 of tasks, by precedence
        B65 a default told from the same value given
        B65a limits at run time
    """,
    "JSON": """
        B66 keys of every job
        B67 entrypoint and env of other types
        B68 form of env
        B69 keys of workflows
        B70 keys of tasks
        B71 keys of images
        B72 to_json and its indent
        B73 variables that types add
        B74 what travels beside the cron text
        B75 get_schedule_args
    """,
    "Schedule": """
        B76 six fields
        B77 lists become comma lists
        B78 steps
        B79 fields that are left out
        B80 numbers in the place of lists
        B81 names of days and months
        B82 cron text given as such
        B83 empty schedules
        B84 changing a field
        B85 fields that exclude each other
        B86 ranges
        B87 time zones
        B88 day of month and of week together
        B89 no overlap, nothing made up
        B90 predecessors
        B91 conditions on predecessors
        B92 runs after a predecessor
        B93 ticks that wait for a predecessor
        B94 missing predecessors and circles
    """,
    "Job life cycle": """
        B95 pairs instead of exceptions
        B96 second part of the pair
        B97 the line after a success
        B98 every save is a version
        B99 also without a change
        B100 states of a version, build log
        B101 a name belongs to one type
        B102 run is save and start
        B103 what start does
        B104 which version starts
        B105 replacing and rolling back
        B106 starting what was never saved
        B107 states
        B108 fail_after
        B109 expire_after
        B110 failures and what depends on them
        B111 side by side
        B112 get_existing
        B113 what a loaded job can do
        B114 nothing, or too much, is found
        B115 version without get_existing
        B116 found by either name
        B117 definition as a dictionary
        B118 versions
        B119 promote
        B120 promote all environments
        B121 refused promotions
        B122 promotion starts nothing
        B123 promotion twice
        B124 stop
        B125 remove and restore
        B126 rerun
        B127 partial rerun
        B128 full rerun
        B129 original run of a chain
        B130 arguments and variables of a rerun
        B131 results across reruns
        B132 refused reruns
        B133 commands by name
        B134 from_dict
        B135 add_job
        B136 finding tasks
        B137 copy of the variables
        B138 reset
        B139 next_job_id
        B140 set_local_run
        B141 running one task here
        B142 pickling a task
    """,
    "Runs, logs, results": """
        B143 runs and their keys
        B144 keys that are not there
        B145 bounds of time
        B146 cached answers
        B147 local times
        B148 run_details
        B149 entries of tasks
        B150 names from the version that ran
        B151 tasks that did not run
        B152 unknown runs
        B153 enriching entries
        B154 ids from names
        B155 logs
        B156 log of the run itself
        B157 logs outlive what wrote them
        B158 output while it runs
        B159 results
        B160 when there is no result
        B161 unknown tasks
        B162 cost
    """,
    "Repository check": """
        B163 clean and in sync
        B164 upstream or HEAD of the remote
        B165 a text for each reason
        B166 allowing unsafe scheduling
        B167 saving never fails because of it
        B168 warning about it
    """,
    "Image and code": """
        B169 Python versions
        B170 default versions
        B171 requirements
        B172 a missing requirements file
        B173 pyproject files
        B174 build scripts
        B175 order of a build
        B176 where the code is laid out
        B177 base image
        B178 secrets of builds
        B179 comparing and updating images
        B180 an image given to a job
        B181 imports that are not listed
        B182 which directory is packaged
        B183 paths of repository and module
        B184 nothing outside is shipped
        B185 inside git
        B186 outside git
        B187 always left out
        B188 files as they are on disk
    """,
    "EntryPoint": """
        B189 functions and modules
        B190 notebooks
        B191 texts
        B192 callable objects
        B193 anything else
        B194 calling an entrypoint
        B195 types of jobs
    """,
    "Services": """
        B196 the port as argument
        B197 started again
        B198 reachable by name
        B199 health
        B200 port in a variable
        B201 documentation page
        B202 address from outside
    """,
    "Apps": """
        B203 address of an app
        B204 which framework
        B205 unknown frameworks
        B206 packages of a framework
        B207 the file of a streamlit app
        B208 what each framework runs
        B209 where a notebook lies
        B210 the visitor's name
        B211 sections
        B212 started again
    """,
    "Excel add-ins": """
        B213 the add-in of a module
        B214 exposing functions
        B215 streaming excludes a bar
        B216 checking arguments
        B217 annotations that are refused
        B218 results as cells
        B219 streaming functions
        B220 progress bar
        B221 names of queues
        B222 serving an add-in
        B223 imports without numpy
        B224 one instance for all users
        B225 binding to this machine
    """,
    "Environment of a process": """
        B226 variables of every process
        B227 user and group
        B228 the user's own variables
        B229 variables of tasks
        B230 variables of other types
        B231 variables of a local run
        B232 get_dt_env
        B233 signed in as run_as
        B234 out of memory
    """,
    "Access control": """
        B235 what permissions allow
        B236 default list
        B237 given lists
        B238 lists in JSON
        B239 lists for the command line
        B240 lists of saved jobs
        B241 refused operations
        B242 run_as
        B243 administrators
        B244 equal lists
    """,
    "Logging": """
        B264 the logger and its lines
        B265 levels
        B266 colours
        B267 marks around user code
    """,
    "Command line": """
        B268 groups, lists, exit codes
        B269 commands and options
        B270 JSON of jobs
        B271 JSON of runs
        B272 JSON of the rest
        B273 log read
        B274 commands as methods
        B275 the program datatailr
    """,
    "Filter and sort expressions": """
        B276 grammar
        B277 operators
        B278 lists of values
        B279 quoting
        B280 fields
        B281 mistakes are named
        B282 sorting and paging
    """,
    "Errors": """
        B283 the tree of errors
        B284 errors of schedules
        B285 messages name what is at fault
    """,
}

_FIRING = "schedules are stored and do not fire yet"
_SERVING = "services do not run yet"
_APPS = "apps do not run yet"
_ADDINS = "add-ins are not served yet"

LATER: dict[str, str] = {
    **dict.fromkeys(("B88", "B89", "B92", "B93"), _FIRING),
    "B177": "images of containers",
    "B178": "secrets of people and builds",
    **dict.fromkeys((f"B{number}" for number in range(196, 203)), _SERVING),
    **dict.fromkeys(("B203", "B207", "B208", "B212"), _APPS),
    **dict.fromkeys(("B218", "B220", "B222", "B224", "B225"), _ADDINS),
}
"""Clauses whose proof comes with a later piece of the platform, and which piece that is."""


def titles() -> dict[str, dict[str, str]]:
    """Section to clause to title, in the order of the contract."""
    found: dict[str, dict[str, str]] = {}
    for section, text in SECTIONS.items():
        lines = (line.strip().partition(" ") for line in text.strip().splitlines())
        found[section] = {clause: title for clause, _, title in lines}
    return found


CLAUSES: frozenset[str] = frozenset(clause for section in titles().values() for clause in section)
"""Sections 1 to 16 and 19 to 22."""
