from $module import ${Part}Config

head = ${Part}Config(channels=512, score_threshold=0.1)
