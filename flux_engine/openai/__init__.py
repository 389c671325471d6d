"""OpenAI's images API, translated: its requests into jobs, and what comes of a job into its answers.

    request     generation_job, edit_job: a request's JSON body -> a job's `input`, and wishes for the answer
    form        a multipart form -> the same JSON body
    value       one value of a request, checked or refused by the client's own name for it
    mask        OpenAI's mask (transparent is repainted) -> the contract's (white is repainted)
    answer      a job's result -> ImagesResponse; the models served -> the list of models
    events      progress and result -> the events of a stream
    call        the whole way of a request that RunPod hands over in a job's input
    error       a job's error -> the error object, with its HTTP status

    asked = generation_job(body, context)
    job = parse_job(Request(id=identity, input=asked.job), context)
    ...
    images_body(result, asked, created=int(time.time()))

Pure: nothing here opens a socket, waits or knows which server it runs in, so that the worker and the gateway share it.
Only errors, job and the guards of media/decode.py are imported. Shapes are those of the openai client 3.57.
"""
