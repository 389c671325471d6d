"""What makes the volume, the images and every generated file; nothing here runs in a worker or a gateway.

    fetch_models, fetch_file   models onto a volume
    docs                       all generated pages: gpus_table, lora_tables, model_file_tables, performance_page and
                               performance_plots, hub_form, manifests, client_types, postman
    dashboard, custom_schemas, vendor_page   files of deploy/ and of the page, made now and then
    calibrate                  what a GPU measured, into the table of cards
    import_contracts           a kind of contract for import-linter
    images/                    both Dockerfiles built and run without a container daemon
    flux_tiny/                 the bundled models, trained from nothing

It imports flux_engine and the figures of benchmarks; in come the tests, import-linter and the command line.
"""
