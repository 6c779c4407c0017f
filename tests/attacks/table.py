"""The whole table: every case is a row, or a test elsewhere."""

from __future__ import annotations

from tests.attacks import rows_files, rows_kernel, rows_limits, rows_network, rows_output, rows_processes, rows_tenants
from tests.attacks.attack import Attack

ROWS: tuple[Attack, ...] = (
    *rows_files.ROWS, *rows_processes.ROWS, *rows_limits.ROWS, *rows_output.ROWS, *rows_kernel.ROWS, *rows_network.ROWS,
    *rows_tenants.ROWS,
)  # fmt: skip

BY_USER = {
    "FS": "files of the worker's user are the run's own, but for what the sandbox does",
    "FD": "descriptors are opened, and /proc/PID/fd is read, with the rights of the worker's user",
    "PROC": "who has the worker's user may signal it, trace it and read it, but for what the sandbox does",
    "KERN": "many calls are refused to ordinary users anyway: the outside control shows which are not",
    "NET": "sockets with a path are files, and some sorts of sockets are for root only",
    "XT": "two runs of one worker have one user",
    "ZYG": "a zygote gives up root where its worker has it, and never had it otherwise",
    "MEM-08": "the kernel counts buffers of pipes by user, and the worker is the same one",
}
"""Category or row → why what becomes of it can depend on the worker's user. What only uses up processor, memory, disk
or output, or writes a false answer, meets the same limits and the same parser whoever the worker is."""

CATALOGUE = {
    "FS": "01 02 04 05 07 08 10 11 13 14 16 17 19 20 22 23 25 26",
    "FD": "01 02 04 05 07 08 10",
    "PROC": "01 02 04 05 07 08 10 11 13 14 16",
    "MEM": "01 02 04 05 07 08 10 11 13 14",
    "CPU": "01 02 04 05 07 08 10",
    "DISK": "01 02 04 05 07 08",
    "OUT": "01 02 04 05 07 08 10 11 13 14 16 17",
    "KERN": "01 02 04 05 07 08 10 11 13 14 16 17 19 20 22 23 25 26",
    "NET": "01 02 04 05 07 08 10 11 13 14 16 17 19 20",
    "NAME": "01 02 04 05 07 08 10",
    "DOC": "01 02 04 05 07 08 10 11 13 14 16",
    "DATA": "01 02 04 05 07 08 10 11 13 14 16 17",
    "IMG": "01 02 04 05 07 08 10 11",
    "SSRF": "01 02 04 05 07 08 10 11 13 14 16 17 19 20 22 23 25 26 28 29",
    "JOB": "01 02 04 05 07 08 10 11 13 14 16 17 19 20",
    "XT": "01 02 04 05 07 08",
    "ZYG": "01 02 04 05 07 08 10 11 13 14",
    "API": "01 02 04 05 07 08 10 11 13 14 16 17 19 20 22 23",
}
"""Category → the numbers of its cases. Those from 90 on are our own additions."""

MUST_HAVE_CONTROL = {
    "FS": "01 02 04 05 20", "FD": "04", "PROC": "01 02 04 05 07 08 16", "MEM": "01 02 04 05 07 08 11 13 14",
    "CPU": "01 02 04 05 08", "DISK": "01 02 04 07", "OUT": "01 02 04 05 07 08 10 11 13 14 16",
    "KERN": "01 04 07 10 11 13 16 19 20 25", "NET": "01 02 04 05 08 10 13 14",
}  # fmt: skip
"""Cases that are known to succeed without a sandbox: each has at least one row whose control shows it."""

_FILES = "attacks/test_hostile_files.py::test_a_hostile_file_does_no_harm"

ELSEWHERE = {
    **{f"DOC-{number}": _FILES for number in CATALOGUE["DOC"].split()},
    **{
        f"DATA-{number}": "attacks/test_hostile_data.py::test_hostile_data_does_no_harm"
        for number in CATALOGUE["DATA"].split()
    },
    "DATA-16": "handlers/test_data_rows.py::test_csv_is_an_artifact_without_formulas",
    "DOC-13": "attacks/test_hostile_files.py::test_a_damaged_file_ends_one_run_only",
    **{f"IMG-{number}": _FILES for number in CATALOGUE["IMG"].split()},
    "IMG-11": "handlers/test_image_processing.py::test_no_other_decoder_is_loaded",
    "JOB-01": "chaos/test_steps.py::test_a_task_that_was_claimed_runs_again",
    "JOB-02": "chaos/test_steps.py::test_a_task_that_was_already_stored_runs_once",
    "JOB-04": "service/test_faults.py::test_worker_that_was_frozen_past_its_lease_writes_nothing",
    "JOB-05": "service/test_faults.py::test_task_that_loses_every_worker_fails_as_our_fault",
    "JOB-10": "chaos/test_weather.py::test_tasks_are_accepted_whatever_redis_does",
    "JOB-11": "chaos/test_steps.py::test_a_task_whose_api_was_killed_runs_all_the_same",
    "JOB-14": "chaos/test_weather.py::test_results_do_not_depend_on_redis",
    "JOB-16": "service/test_store.py::test_what_two_workers_do_at_the_same_time_is_done_once",
    "JOB-19": "chaos/test_storm.py::test_no_promise_is_broken_in_a_storm",
    "JOB-20": "service/test_faults.py::test_worker_without_descriptors_spends_no_tasks",
    "JOB-07": "service/test_cancel.py::test_unknown_task_is_404",
    "JOB-08": "service/test_cancel.py::test_cancelled_task_stays_as_it_ended",
    "JOB-13": "service/test_idempotency.py::test_hundred_at_once_are_one_task",
    "JOB-17": "service/test_queue.py::test_flood_of_one_tenant_does_not_delay_another",
    "NAME-05": "service/test_scripts.py::test_script_that_is_swapped_runs_as_it_was_read",
    "NAME-07": "service/test_scripts.py::test_name_has_one_spelling",
    "SSRF-26": "service/test_callbacks.py::test_callback_elsewhere_is_refused",
    "NAME-08": "service/test_files.py::test_an_input_name_that_leaves_its_folder_is_refused",
    "NET-16": "sandbox/test_egress.py::test_a_host_that_the_policy_does_not_name_sees_nothing",
    "NET-17": "sandbox/test_egress.py::test_a_head_that_can_be_read_in_two_ways_is_refused",
    "NET-20": "sandbox/test_egress.py::test_a_run_that_floods_its_proxy_holds_up_no_other",
    "SSRF-01": "sandbox/test_egress.py::test_an_address_in_the_url_is_refused_in_every_spelling",
    "SSRF-02": "sandbox/test_egress.py::test_a_name_that_leads_to_an_address_that_is_not_public_is_refused",
    "SSRF-04": "sandbox/test_egress.py::test_a_name_that_leads_to_an_address_that_is_not_public_is_refused",
    "SSRF-05": "sandbox/test_egress.py::test_an_address_in_the_url_is_refused_in_every_spelling",
    "SSRF-07": "sandbox/test_egress.py::test_a_head_that_can_be_read_in_two_ways_is_refused",
    "SSRF-08": "sandbox/test_egress.py::test_a_redirect_is_a_request_like_any_other",
    "SSRF-10": "sandbox/test_egress.py::test_a_head_that_can_be_read_in_two_ways_is_refused",
    "SSRF-11": "sandbox/test_egress.py::test_a_rebinding_name_is_looked_up_once_and_dialled_where_it_was_checked",
    "SSRF-13": "sandbox/test_egress.py::test_another_port_of_an_allowed_host_sees_nothing",
    "SSRF-14": "sandbox/test_egress.py::test_a_head_that_can_be_read_in_two_ways_is_refused",
    "SSRF-16": "sandbox/test_egress.py::test_bytes_beyond_the_cap_are_not_received",
    "SSRF-17": "sandbox/test_egress.py::test_a_host_that_is_slow_to_answer_is_given_up",
    "SSRF-19": "sandbox/test_egress.py::test_an_answer_that_can_be_read_in_two_ways_is_refused",
    "SSRF-20": "sandbox/test_egress.py::test_tls_goes_through_and_the_certificate_is_checked_inside",
    "SSRF-22": "sandbox/test_web_scraping.py::test_a_selector_that_cannot_be_read_is_refused_before_fetching",
    "SSRF-23": "sandbox/test_web_scraping.py::test_a_selector_that_cannot_be_read_is_refused_before_fetching",
    "SSRF-25": "sandbox/test_web_scraping.py::test_characters_are_right",
    "SSRF-28": "sandbox/test_egress.py::test_the_proxys_own_environment_changes_nothing",
    "SSRF-29": "sandbox/test_egress.py::test_headers_for_the_proxy_alone_are_not_passed_on",
    "API-01": "service/test_keys.py::test_no_route_answers_without_a_key_that_holds",
    "API-02": "service/test_keys.py::test_every_key_is_compared_in_constant_time",
    "API-04": "service/test_execute.py::test_ids_are_random",
    "API-05": "service/test_keys.py::test_idempotency_keys_of_two_tenants_are_two",
    "API-07": "service/test_refusals.py::test_long_body_is_413",
    "API-08": "service/test_refusals.py::test_bad_body_is_400_and_names_the_place",
    "API-10": "service/test_refusals.py::test_bad_body_is_400_and_names_the_place",
    "API-11": "service/test_fairness.py::test_no_tenant_and_no_priority_waits_for_a_flood",
    "API-13": "service/test_request_ids.py::test_malformed_id_is_replaced",
    "API-14": "service/test_refusals.py::test_foreign_host_name_is_refused_on_loopback",
    "API-16": "service/test_connections.py::test_what_can_be_read_in_two_ways_is_400",
    "API-17": "service/test_refusals.py::test_other_methods_are_405",
    "API-19": "service/test_refusals.py::test_id_in_another_form_is_404",
    "API-20": "service/test_faults.py::test_poisoned_queue_runs_nothing",
    "API-22": "service/test_refusals.py::test_answers_cannot_be_taken_for_pages",
    "API-23": "service/test_events.py::test_followers_are_capped_and_idle_ones_hear_that_it_lives",
    "XT-08": "service/test_files.py::test_equal_artifacts_of_two_tasks_are_two",
    "PROC-14": "sandbox/test_pool.py::test_killed_zygote_is_our_failure_and_the_pool_heals",
    "XT-05": "sandbox/test_pool.py::test_two_hundred_at_once_get_their_own_answers",
    "ZYG-01": "sandbox/test_randomness.py::test_no_two_runs_draw_the_same",
    "ZYG-02": "sandbox/test_randomness.py::test_no_two_runs_draw_the_same",
    "ZYG-04": "sandbox/test_randomness.py::test_no_two_runs_draw_the_same",
    "ZYG-05": "sandbox/test_randomness.py::test_no_two_runs_draw_the_same",
    "ZYG-08": "sandbox/test_pool.py::test_hundreds_of_runs_leave_nothing",
    "ZYG-10": "sandbox/test_pool.py::test_killed_zygote_is_our_failure_and_the_pool_heals",
    "ZYG-11": "sandbox/test_pool.py::test_hundreds_of_runs_leave_nothing",
}
"""Case → the test that has it: it is about the pool or the service, not about one program."""
